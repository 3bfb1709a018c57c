package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func commitCommand() command {
	return command{
		name: "commit", aliases: []string{"image commit"}, args: "CONTAINER IMAGE", min: 2, max: 2,
		short: "make an image of what a container changed",
		detail: "The new image is the container's with one layer more. A container that runs is frozen meanwhile.\n" +
			"--change takes one instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER,\n" +
			"VOLUME or WORKDIR, and may be given several times. With --created, or SOURCE_DATE_EPOCH in the\n" +
			"environment, the same container gives the same digests.",
		setup: func(fs *pflag.FlagSet) action {
			var r client.CommitRequest
			var created string
			fs.StringVarP(&r.Author, "author", "a", "", "`author` of the image")
			fs.StringVarP(&r.Message, "message", "m", "", "`text` for the image's history")
			fs.StringArrayVarP(&r.Changes, "change", "c", nil, "`instruction` that changes the configuration")
			pause := fs.BoolP("pause", "p", true, "freeze the container meanwhile")
			fs.StringVar(&r.Compression, "compression", "gzip", "`kind` of the layer's compression: gzip, zstd or uncompressed")
			fs.IntVar(&r.Level, "compression-level", 0, "`level` of the compression; 0 is its default")
			fs.StringVar(&created, "created", "", "`time` of the image and the latest of its files, in RFC 3339 or seconds since 1970")
			return func(ctx context.Context, a *app, args []string) (err error) {
				r.NoPause = !*pause
				if r.Created, err = parseTime(or(created, a.env("SOURCE_DATE_EPOCH"))); err != nil {
					return err
				}
				return commit(ctx, a, r, args[0], args[1])
			}
		},
	}
}

// parseTime reads a time; "" is none.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fmt.Errorf("time %q: want one like 2006-01-02T15:04:05Z, or seconds since 1970: %w", text, errdefs.ErrInvalidArgument)
	}
	return t, nil
}

func commit(ctx context.Context, a *app, r client.CommitRequest, container, image string) error {
	// An interrupt cancels the call, and the daemon's answer is that it has undone it.
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
