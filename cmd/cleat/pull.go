package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/dockerconfig"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

// registryFlags are what the commands have in common that talk to registries.
type registryFlags struct {
	user     string
	quiet    bool
	platform string
}

func (r *registryFlags) declare(fs *pflag.FlagSet, platform string) {
	fs.StringVarP(&r.user, "user", "u", "", "log in as `user[:password]`; without a password it is read from stdin")
	fs.BoolVarP(&r.quiet, "quiet", "q", false, "show no progress")
	fs.StringVar(&r.platform, "platform", "", platform)
}

const credentialsDetail = `Without --user the credential is taken from where docker login puts it: ~/.docker/config.json, or
DOCKER_CONFIG, with its credential helpers. It is shown to the registry that the reference names, and to no
mirror. How registries are reached is configured for the daemon, in /etc/cleat/certs.d.`

// credential returns what to show to the registry of a reference.
func (r *registryFlags) credential(ctx context.Context, a *app, reference string) (client.Credential, error) {
	if r.user == "" {
		c, err := dockerconfig.Lookup(ctx, dockerconfig.Path(a.env), dockerconfig.Registry(reference))
		return c, hinted(err, "mend what docker login left there, or do without it: --user")
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

func pullCommand() command {
	return command{
		name: "pull", aliases: []string{"image pull"}, args: "REFERENCE", min: 1, max: 1,
		short: "fetch an image from a registry",
		detail: "What is here is not fetched again, and a pull that was broken off goes on where it was.\n" +
			credentialsDetail,
		setup: func(fs *pflag.FlagSet) action {
			var r client.PullRequest
			var flags registryFlags
			flags.declare(fs, "`os/arch[/variant]`; this machine's if not given")
			fs.BoolVar(&r.AllPlatforms, "all-platforms", false, "fetch the image for every platform")
			fs.IntVar(&r.MaxConcurrentDownloads, "max-concurrent-downloads", 3, "`number` of layers fetched at the same time")
			fs.StringVar(&r.Snapshotter, "snapshotter", "", "snapshotter by `name`")
			fs.BoolVar(&r.NoUnpack, "no-unpack", false, "store only; unpack at the first run")
			return func(ctx context.Context, a *app, args []string) error {
				r.Reference, r.Platform = args[0], flags.platform
				return pull(ctx, a, r, &flags)
			}
		},
	}
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
			return hinted(err, "what was fetched is kept: the same pull goes on from there")
		}
		if err != nil {
			return registryHint(err)
		}
		return writeLines(a.stdout, []string{pinned(img)})
	})
}

// pinned is an image's name with its digest.
func pinned(img client.Image) string {
	if strings.HasSuffix(img.Name, "@"+img.Digest) {
		return img.Name
	}
	return img.Name + "@" + img.Digest
}

// registryHint gives an error of a pull or push that has no reason the hint of its class.
func registryHint(err error) error {
	if client.ReasonOf(err) == client.NoReason && (errdefs.IsFailedPrecondition(err) || errdefs.IsInvalidArgument(err)) {
		return hinted(err, "the reference, or what the registry has under it, is not usable; see docs/registries.md")
	}
	return err
}
