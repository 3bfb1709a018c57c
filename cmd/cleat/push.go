package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func pushCommand() command {
	return command{
		name: "push", aliases: []string{"image push"}, args: "REFERENCE [IMAGE]", min: 1, max: 2,
		short: "bring an image to a registry",
		detail: "The image is the one of that name, or IMAGE. What the registry has is not sent; an image of several\n" +
			"platforms goes with all of them, or with the one that --platform names.\n" + credentialsDetail,
		setup: func(fs *pflag.FlagSet) action {
			var r client.PushRequest
			var flags registryFlags
			flags.declare(fs, "only the image for `os/arch[/variant]`")
			fs.IntVar(&r.MaxConcurrentUploads, "max-concurrent-uploads", 3, "`number` of blobs sent at the same time")
			fs.BoolVar(&r.Referrers, "referrers", false, "push what is here and refers to it as well: signatures, attestations")
			return func(ctx context.Context, a *app, args []string) error {
				r.Reference, r.Platform = args[0], flags.platform
				if len(args) > 1 {
					r.Image = args[1]
				}
				return push(ctx, a, r, &flags)
			}
		},
	}
}

func push(ctx context.Context, a *app, r client.PushRequest, flags *registryFlags) (err error) {
	if r.MaxConcurrentUploads < 1 {
		return usage("cleat push", fmt.Errorf("max-concurrent-uploads %d: want 1 or more: %w", r.MaxConcurrentUploads, errdefs.ErrInvalidArgument))
	}
	if r.Credential, err = flags.credential(ctx, a, r.Reference); err != nil {
		return err
	}
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		bars := a.newBars(flags.quiet)
		img, err := c.Push(ctx, r, bars.update)
		bars.finish()
		if client.ReasonOf(err) == client.ReasonImageNotFound {
			return hinted(err, "cleat image ls lists the images; cleat push REFERENCE IMAGE pushes one under another name")
		}
		if err != nil {
			return registryHint(err)
		}
		return writeLines(a.stdout, []string{pinned(img)})
	})
}

func imageTagCommand() command {
	return command{
		name: "image tag", aliases: []string{"tag"}, args: "IMAGE NAME", min: 2, max: 2,
		short: "give an image another name",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
				return a.withClient(ctx, func(c *client.Client) error {
					img, err := c.TagImage(ctx, args[0], args[1])
					if err != nil {
						return err
					}
					return writeLines(a.stdout, []string{img.Name})
				})
			}
		},
	}
}

func imagePruneCommand() command {
	return command{
		name: "image prune", max: 0,
		short:  "remove images that no container was made of",
		detail: "Without --all only images without a name of their own: those that an import found unnamed.",
		setup: func(fs *pflag.FlagSet) action {
			all := fs.BoolP("all", "a", false, "also images with a name")
			return func(ctx context.Context, a *app, _ []string) error {
				return a.withClient(ctx, func(c *client.Client) error { return pruneImages(ctx, a, c, *all) })
			}
		},
	}
}

// unnamed is how the daemon calls images that an archive has no name for.
const unnamed = "import-"

func pruneImages(ctx context.Context, a *app, c *client.Client, all bool) error {
	boxes, err := c.List(ctx, client.ListRequest{All: true})
	if err != nil {
		return err
	}
	used := make(map[string]bool)
	for _, b := range boxes {
		used[b.Image] = true
	}
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	var errs error
	for _, i := range images {
		if used[i.Name] || !all && !(strings.HasPrefix(i.Name, unnamed) && strings.HasSuffix(i.Name, "@"+i.Digest)) {
			continue
		}
		if err := c.RemoveImage(ctx, i.Name); err != nil && !errdefs.IsNotFound(err) {
			errs = errors.Join(errs, err)
			continue
		}
		errs = errors.Join(errs, writeLines(a.stdout, []string{i.Name}))
	}
	return errs
}
