package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

// imageJSON is the JSON form of an image.
type imageJSON struct {
	Name      string            `json:"name"`
	Digest    string            `json:"digest"`
	MediaType string            `json:"media_type"`
	Size      int64             `json:"size"`
	Created   string            `json:"created"`
	Platforms []string          `json:"platforms"`
	Labels    map[string]string `json:"labels"`
	Manifest  json.RawMessage   `json:"manifest,omitempty"`
	Config    json.RawMessage   `json:"config,omitempty"`
}

func imageToJSON(i client.Image) imageJSON {
	if i.Labels == nil {
		i.Labels = map[string]string{}
	}
	if i.Platforms == nil {
		i.Platforms = []string{}
	}
	return imageJSON{
		Name: i.Name, Digest: i.Digest, MediaType: i.MediaType, Size: i.Size,
		Created: timestamp(i.CreatedAt), Platforms: i.Platforms, Labels: i.Labels,
	}
}

func imageGroup(a *app, words []string) *cobra.Command {
	return group(a, "image", "manage images", words,
		entry{names: "ls list", build: imageLsCommand},
		entry{names: "inspect", build: imageInspectCommand},
		entry{names: "tag", build: imageTagCommand},
		entry{names: "rm remove", build: imageRmCommand},
		entry{names: "prune", build: imagePruneCommand},
		entry{names: "import load", build: imageImportCommand},
		entry{names: "export save", build: imageExportCommand},
		entry{names: "convert", build: imageConvertCommand},
		entry{names: "mount", build: imageMountCommand},
		entry{names: "unmount umount", build: imageUnmountCommand},
		entry{names: "usage", build: imageUsageCommand},
		entry{names: "label", build: imageLabelCommand},
		entry{names: "referrers", build: imageReferrersCommand},
		entry{names: "pull", build: pullCommand},
		entry{names: "push", build: pushCommand},
		entry{names: "commit", build: commitCommand})
}

func imageImportCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import [FLAGS] FILE|-", Short: "import images from an archive", Aliases: []string{"load"},
		Long: "The archive is an OCI layout or the output of docker save, plain or compressed; - reads stdin.",
		Args: argCount(1, 1), ValidArgsFunction: a.completeArgs(false, nil),
	}
	fs := cmd.Flags()
	var o client.ImportOptions
	fs.StringVar(&o.Name, "name", "", "`NAME` for an image that has none in the archive")
	fs.StringVar(&o.Platform, "platform", "", "unpack the image for `PLATFORM`: OS/ARCH[/VARIANT] (default that of the host)")
	fs.StringVar(&o.Snapshotter, "snapshotter", "", "unpack with the snapshotter `NAME`")
	fs.BoolVar(&o.NoUnpack, "no-unpack", false, "do not unpack before the first run")
	fs.BoolVar(&o.AllPlatforms, "all-platforms", false, "import every platform; fail if one is missing from the archive")
	inGroup(fs, groupImage, "name", "platform", "all-platforms")
	inGroup(fs, groupStorage, "snapshotter", "no-unpack")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return importImage(cmd.Context(), a, args[0], o) }
	return cmd
}

func importImage(ctx context.Context, a *app, file string, o client.ImportOptions) (err error) {
	var in io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("open archive: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read from
		in = f
	}
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		if err := stdio.Collect(c.StdioRoot()); err != nil {
			return err
		}
		images, err := c.ImportImage(ctx, in, o)
		if errdefs.IsInvalidArgument(err) {
			return hinted(err, "docker save, skopeo copy ... oci-archive:FILE and tar of an OCI layout make archives")
		}
		if err != nil {
			return err
		}
		var names []string
		for _, i := range images {
			names = append(names, cmp.Or(i.Name, i.Digest))
		}
		return writeLines(a.stdout, names)
	})
}

func imageLsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls [FLAGS]", Short: "list images", Aliases: []string{"list"}, Args: argCount(0, 0),
		Annotations: map[string]string{aliasAnnotation: "cleat image ls, cleat images"},
	}
	fs := cmd.Flags()
	l := &listFlags{}
	l.declare(fs)
	filters := fs.StringArrayP("filter", "f", nil, "only images that match `FILTER`, such as name~=busybox or labels.KEY==VALUE; may be repeated for or")
	digests := fs.Bool("digests", false, "show full digests")
	inGroup(fs, groupOutput, "digests")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			images, err := c.Images(ctx, *filters...)
			if err != nil {
				return err
			}
			return showImages(a, l, images, *digests)
		})
	}
	return cmd
}

func showImages(a *app, l *listFlags, images []client.Image, digests bool) error {
	now := time.Now()
	names, rows, asJSON := []string{}, [][]string{}, []imageJSON{}
	for _, i := range images {
		names = append(names, i.Name)
		digest := shortDigest(i.Digest)
		if digests {
			digest = i.Digest
		}
		rows = append(rows, []string{i.Name, digest, size(uint64(max(i.Size, 0))), since(i.CreatedAt, now)})
		asJSON = append(asJSON, imageToJSON(i))
	}
	return l.show(a.stdout, []string{"NAME", "DIGEST", "SIZE", "AGE"}, rows, names, asJSON)
}

func shortDigest(d string) string {
	if len(d) > 19 {
		return d[:19]
	}
	return d
}

func imageInspectCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect [FLAGS] IMAGE...", Short: "show images with manifest and configuration as JSON",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listImages),
	}
	platform := cmd.Flags().String("platform", "", "show the image for `PLATFORM`: OS/ARCH[/VARIANT] (default that of the host)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			out := []imageJSON{}
			for _, name := range args {
				d, err := c.Inspect(ctx, name, *platform)
				if err != nil {
					return err
				}
				j := imageToJSON(d.Image)
				j.Manifest, j.Config = d.Manifest, d.Config
				out = append(out, j)
			}
			return writeJSON(a.stdout, out)
		})
	}
	return cmd
}

func imageRmCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm [FLAGS] IMAGE...", Short: "remove images not used by a container", Aliases: []string{"remove"},
		Annotations: map[string]string{aliasAnnotation: "cleat image rm, cleat rmi"},
		Args:        argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listImages),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withClient(ctx, func(c *client.Client) error {
				var errs error
				for _, name := range args {
					if err := c.RemoveImage(ctx, name); err != nil {
						errs = errors.Join(errs, err)
						continue
					}
					errs = errors.Join(errs, writeLines(a.stdout, []string{name}))
				}
				return errs
			})
		},
	}
}
