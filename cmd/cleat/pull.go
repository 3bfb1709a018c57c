package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/dockerconfig"
)

// registryFlags are the flags of the commands that transfer images from or to registries.
type registryFlags struct {
	user     string
	quiet    bool
	platform string
}

func (r *registryFlags) declare(fs *pflag.FlagSet, platform string) {
	r.declareUser(fs)
	fs.BoolVarP(&r.quiet, "quiet", "q", false, "do not show progress")
	fs.StringVar(&r.platform, "platform", "", platform)
	inGroup(fs, groupOutput, "quiet")
	inGroup(fs, groupImage, "platform")
}

func (r *registryFlags) declareUser(fs *pflag.FlagSet) {
	fs.StringVarP(&r.user, "user", "u", "", "log in as `USER[:PASSWORD]`; without a password it is read from stdin")
	inGroup(fs, groupRegistry, "user")
}

const credentialsDetail = `Without --user, the credential is read from where docker login puts it: ~/.docker/config.json or
DOCKER_CONFIG, with its credential helpers. It is sent to the registry that the reference names, and to no
mirror. The daemon's /etc/cleat/certs.d configures how registries are reached.`

// credential returns the credential for the registry of a reference.
func (r *registryFlags) credential(ctx context.Context, a *app, reference string) (client.Credential, error) {
	if r.user == "" {
		c, err := dockerconfig.Lookup(ctx, dockerconfig.Path(a.env), dockerconfig.Registry(reference))
		return c, hinted(err, "correct the file, run docker login again, or use --user")
	}
	user, password, ok := strings.Cut(r.user, ":")
	if !ok {
		var err error
		if password, err = a.readPassword(); err != nil {
			return client.Credential{}, err
		}
	}
	return client.Credential{Username: user, Password: password}, nil
}

func pullCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "pull [FLAGS] REFERENCE", Short: "pull an image from a registry",
		Long: "Local blobs are not fetched again, and an interrupted pull resumes where it stopped.\n\n" + credentialsDetail,
		Args: argCount(1, 1), ValidArgsFunction: a.completeArgs(false, listImages),
		Annotations: map[string]string{aliasAnnotation: "cleat pull, cleat image pull"},
	}
	fs := cmd.Flags()
	var r client.PullRequest
	var flags registryFlags
	flags.declare(fs, "pull the image for `PLATFORM`: OS/ARCH[/VARIANT] (default that of the host)")
	fs.BoolVar(&r.AllPlatforms, "all-platforms", false, "pull the image for every platform")
	fs.IntVar(&r.MaxConcurrentDownloads, "max-concurrent-downloads", 3, "fetch `NUMBER` layers in parallel")
	fs.StringVar(&r.Snapshotter, "snapshotter", "", "unpack with the snapshotter `NAME`")
	fs.BoolVar(&r.NoUnpack, "no-unpack", false, "do not unpack before the first run")
	inGroup(fs, groupImage, "all-platforms")
	inGroup(fs, groupRegistry, "max-concurrent-downloads")
	inGroup(fs, groupStorage, "snapshotter", "no-unpack")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Reference, r.Platform = args[0], flags.platform
		return pull(cmd.Context(), a, r, &flags)
	}
	return cmd
}

func pull(ctx context.Context, a *app, r client.PullRequest, flags *registryFlags) (err error) {
	if r.MaxConcurrentDownloads < 1 {
		return usage("cleat pull", fmt.Errorf("max-concurrent-downloads %d: want 1 or more: %w", r.MaxConcurrentDownloads, errdefs.ErrInvalidArgument))
	}
	if r.Credential, err = flags.credential(ctx, a, r.Reference); err != nil {
		return err
	}
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		bars := a.newBars(flags.quiet)
		img, err := c.Pull(ctx, r, bars.update)
		bars.finish()
		if s := proxy.cancelledBy(); s != 0 && err != nil {
			return hinted(err, "downloaded data is kept; the same command resumes the pull")
		}
		if err != nil {
			return registryHint(err)
		}
		return writeLines(a.stdout, []string{pinned(img)})
	})
}

// pinned returns the name of an image with its digest.
func pinned(img client.Image) string {
	if strings.HasSuffix(img.Name, "@"+img.Digest) {
		return img.Name
	}
	return img.Name + "@" + img.Digest
}

// registryHint adds a hint to the error of a pull or push that has a class but no reason.
func registryHint(err error) error {
	if client.ReasonOf(err) == client.NoReason && (errdefs.IsFailedPrecondition(err) || errdefs.IsInvalidArgument(err)) {
		return hinted(err, "check the reference and the image that it names; see docs/registries.md")
	}
	return err
}
