package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

// imageJSON is an image for programs.
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

func imageImportCommand() command {
	return command{
		name: "image import", aliases: []string{"image load"}, args: "FILE|-", min: 1, max: 1,
		short:  "import the images of an archive",
		detail: "The archive is an OCI layout or what docker save writes, plain or compressed; - reads stdin.",
		setup: func(fs *pflag.FlagSet) action {
			var o client.ImportOptions
			fs.StringVar(&o.Name, "name", "", "`name` for an image that has none in the archive")
			fs.StringVar(&o.Platform, "platform", "", "`os/arch[/variant]` to unpack; this machine's if not given")
			fs.StringVar(&o.Snapshotter, "snapshotter", "", "snapshotter by `name`")
			fs.BoolVar(&o.NoUnpack, "no-unpack", false, "store only; unpack at the first run")
			fs.BoolVar(&o.AllPlatforms, "all-platforms", false, "every platform; an error where the archive lacks one")
			return func(ctx context.Context, a *app, args []string) error { return importImage(ctx, a, args[0], o) }
		},
	}
}

func importImage(ctx context.Context, a *app, file string, o client.ImportOptions) (err error) {
	var in io.Reader = a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("open archive: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
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
			return hinted(err, "an archive comes from docker save, skopeo copy ... oci-archive:FILE, or tar of an OCI layout")
		}
		if err != nil {
			return err
		}
		var names []string
		for _, i := range images {
			names = append(names, or(i.Name, i.Digest))
		}
		return writeLines(a.stdout, names)
	})
}

func imageLsCommand() command {
	return command{
		name: "image ls", aliases: []string{"images", "image list"}, max: 0,
		short: "list images",
		setup: func(fs *pflag.FlagSet) action {
			l := &listFlags{}
			l.declare(fs)
			filters := fs.StringArrayP("filter", "f", nil, "`filter` such as name~=busybox or labels.KEY==VALUE; several mean or")
			digests := fs.Bool("digests", false, "show digests in full")
			return func(ctx context.Context, a *app, _ []string) error {
				return a.withClient(ctx, func(c *client.Client) error {
					images, err := c.Images(ctx, *filters...)
					if err != nil {
						return err
					}
					return showImages(a, l, images, *digests)
				})
			}
		},
	}
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

func imageInspectCommand() command {
	return command{
		name: "image inspect", args: "IMAGE...", min: 1, max: -1,
		short: "show images with manifest and configuration, as JSON",
		setup: func(fs *pflag.FlagSet) action {
			platform := fs.String("platform", "", "`os/arch[/variant]`; this machine's if not given")
			return func(ctx context.Context, a *app, args []string) error {
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
		},
	}
}

func imageRmCommand() command {
	return command{
		name: "image rm", aliases: []string{"rmi", "image remove"}, args: "IMAGE...", min: 1, max: -1,
		short: "remove images that no container needs",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
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
			}
		},
	}
}
