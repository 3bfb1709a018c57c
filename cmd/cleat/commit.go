package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func commitCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "commit [FLAGS] CONTAINER IMAGE", Short: "create an image from a container's changes",
		Long: "The new image is the container's image with one more layer. A running container is paused while its\n" +
			"changes are read. --change takes one instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,\n" +
			"STOPSIGNAL, USER, VOLUME or WORKDIR. With --created, or SOURCE_DATE_EPOCH in the environment, the same\n" +
			"container results in the same digests.",
		Args: argCount(2, 2), ValidArgsFunction: a.completeArgs(false, listContainers()),
		Annotations: map[string]string{aliasAnnotation: "cleat commit, cleat image commit"},
	}
	fs := cmd.Flags()
	var r client.CommitRequest
	var created string
	fs.StringVarP(&r.Author, "author", "a", "", "`AUTHOR` of the image")
	fs.StringVarP(&r.Message, "message", "m", "", "`TEXT` for the image's history")
	fs.StringArrayVarP(&r.Changes, "change", "c", nil, "apply `INSTRUCTION` to the configuration; may be repeated")
	pause := fs.BoolP("pause", "p", true, "pause the container while its changes are read")
	fs.StringVar(&r.Compression, "compression", "gzip", "compression `TYPE` of the layer: gzip, zstd or uncompressed")
	fs.IntVar(&r.Level, "compression-level", 0, "`LEVEL` of the compression; 0 is the default of its type")
	fs.StringVar(&created, "created", "", "`TIME` of the image and the latest of its files, in RFC 3339 or seconds since 1970")
	inGroup(fs, groupImage, "author", "message", "change", "compression", "compression-level", "created")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		r.NoPause = !*pause
		if r.Created, err = parseTime(cmp.Or(created, a.env("SOURCE_DATE_EPOCH"))); err != nil {
			return err
		}
		return commit(cmd.Context(), a, r, args[0], args[1])
	}
	return cmd
}

// parseTime parses a time; "" is the zero time.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fmt.Errorf("time %q: want the form 2006-01-02T15:04:05Z, or seconds since 1970: %w", text, errdefs.ErrInvalidArgument)
	}
	return t, nil
}

func commit(ctx context.Context, a *app, r client.CommitRequest, container, image string) error {
	// An interrupt cancels the call; the daemon undoes it before it answers.
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		return byID(ctx, c, container, func(id string) error {
			r.Container, r.Image = id, image
			img, err := c.Commit(ctx, r)
			if errdefs.IsInvalidArgument(err) {
				return usage("cleat commit", err)
			}
			if err != nil {
				return err
			}
			return writeLines(a.stdout, []string{pinned(img)})
		})
	})
}
