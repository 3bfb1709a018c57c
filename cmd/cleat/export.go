package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func imageExportCommand() command {
	return command{
		name: "image export", aliases: []string{"image save"}, args: "IMAGE...", min: 1, max: -1,
		short: "write images to an archive",
		detail: "The archive is an OCI layout that docker load takes as well, and cleat image import. It holds the\n" +
			"images for all platforms that are here, with the digests that they have.",
		setup: func(fs *pflag.FlagSet) action {
			var o client.ExportOptions
			out := fs.StringP("output", "o", "-", "`file` to write; - is stdout")
			fs.StringVar(&o.Platform, "platform", "", "only the images for `os/arch[/variant]`")
			fs.BoolVar(&o.AllPlatforms, "all-platforms", false, "every platform; an error where one is not here")
			return func(ctx context.Context, a *app, args []string) error { return exportImages(ctx, a, *out, args, o) }
		},
	}
}

func exportImages(ctx context.Context, a *app, path string, names []string, o client.ExportOptions) (err error) {
	out := a.stdout
	if path == "-" {
		if _, err := getTermios(out); err == nil {
			return hinted(fmt.Errorf("write archive: stdout is a terminal: %w", errdefs.ErrInvalidArgument), "name a file with --output, or redirect")
		}
	} else {
		if out, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		defer func() {
			err = errors.Join(err, writing(out.Close()))
			if err != nil {
				err = errors.Join(err, os.Remove(path)) // half an archive is none
			}
		}()
	}
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		if err := stdio.Collect(c.StdioRoot()); err != nil {
			return err
		}
		return writing(c.ExportImages(ctx, out, names, o))
	})
}
