package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
		var made bool
		if out, made, err = openOutput(path); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		defer func() { err = endOutput(out, path, made, err) }()
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

// openOutput opens a file to write to, and tells whether it made it. What was in it stays until bytes come:
// a name that is none must not cost an older archive.
func openOutput(path string) (f *os.File, made bool, err error) {
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if !errors.Is(err, fs.ErrExist) {
		return f, err == nil, err
	}
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	return f, false, err
}

// endOutput closes a file that was written to, with what came of it. Half an archive is none and is
// removed; devices, pipes, and what nothing was written to stay.
func endOutput(f *os.File, path string, made bool, err error) error {
	info, statErr := f.Stat()
	if statErr != nil || !info.Mode().IsRegular() {
		return errors.Join(err, statErr, writing(f.Close()))
	}
	written, seekErr := f.Seek(0, io.SeekCurrent)
	err = errors.Join(err, seekErr)
	if err == nil {
		err = writing(f.Truncate(written)) // what an older one had more
	}
	err = errors.Join(err, writing(f.Close()))
	if err != nil && (made || written > 0) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
