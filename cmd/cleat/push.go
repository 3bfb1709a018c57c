package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func pushCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "push [FLAGS] REFERENCE [IMAGE]", Short: "push an image to a registry",
		Long: "Pushes the image named REFERENCE, or IMAGE. Blobs that the registry has are not sent. An image with several\n" +
			"platforms is pushed with all of them, or with the one that --platform selects.\n\n" + credentialsDetail,
		Args: argCount(1, 2), ValidArgsFunction: a.completeArgs(false, listImages, listImages),
		Annotations: map[string]string{aliasAnnotation: "cleat push, cleat image push"},
	}
	fs := cmd.Flags()
	var r client.PushRequest
	var flags registryFlags
	flags.declare(fs, "push the image for `PLATFORM` only: OS/ARCH[/VARIANT]")
	fs.IntVar(&r.MaxConcurrentUploads, "max-concurrent-uploads", 3, "send `NUMBER` blobs in parallel")
	fs.BoolVar(&r.Referrers, "referrers", false, "also push local referrers: signatures, attestations")
	inGroup(fs, groupRegistry, "max-concurrent-uploads")
	inGroup(fs, groupImage, "referrers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Reference, r.Platform = args[0], flags.platform
		if len(args) > 1 {
			r.Image = args[1]
		}
		return push(cmd.Context(), a, r, &flags)
	}
	return cmd
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

func imageTagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "tag [FLAGS] IMAGE NAME", Short: "add a name to an image",
		Args: argCount(2, 2), ValidArgsFunction: a.completeArgs(false, listImages),
		Annotations: map[string]string{aliasAnnotation: "cleat image tag, cleat tag"},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withClient(ctx, func(c *client.Client) error {
				img, err := c.TagImage(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				return writeLines(a.stdout, []string{img.Name})
			})
		},
	}
}

func imagePruneCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune [FLAGS]", Short: "remove images not used by a container",
		Long: "Without --all, only images that were imported without a name are removed.",
		Args: argCount(0, 0),
	}
	all := cmd.Flags().BoolP("all", "a", false, "also remove images with a name")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error { return pruneImages(ctx, a, c, *all) })
	}
	return cmd
}

// unnamed is the prefix of the names that the daemon gives to images without a name in their archive.
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
