package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

func imageExportCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export [FLAGS] IMAGE...", Short: "export images to an archive", Aliases: []string{"save"},
		Long: "The archive is an OCI layout that cleat image import and docker load accept. It contains the images for\n" +
			"all local platforms, with unchanged digests.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listImages),
	}
	fs := cmd.Flags()
	var o client.ExportOptions
	out := fs.StringP("output", "o", "-", "`FILE` to write; - is stdout")
	fs.StringVar(&o.Platform, "platform", "", "export the images for `PLATFORM` only: OS/ARCH[/VARIANT]")
	fs.BoolVar(&o.AllPlatforms, "all-platforms", false, "export every platform; fail if one is not local")
	inGroup(fs, groupImage, "platform", "all-platforms")
	inGroup(fs, groupOutput, "output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return exportImages(cmd.Context(), a, *out, args, o) }
	return cmd
}

func exportImages(ctx context.Context, a *app, path string, names []string, o client.ExportOptions) (err error) {
	out := a.stdout
	if path == "-" {
		if _, err := openConsole(out); err == nil {
			return hinted(fmt.Errorf("write archive: stdout is a terminal: %w", errdefs.ErrInvalidArgument), "use --output FILE, or redirect the output")
		}
	} else {
		var created bool
		if out, created, err = openOutput(path); err != nil {
			return fmt.Errorf("write archive: %w", err)
		}
		defer func() { err = endOutput(out, path, created, err) }()
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

// openOutput opens a file for writing and reports whether it created the file. An existing file keeps its content
// until the first write, so that a wrong image name does not destroy an older archive.
func openOutput(path string) (f *os.File, created bool, err error) {
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if !errors.Is(err, fs.ErrExist) {
		return f, err == nil, err
	}
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	return f, false, err
}

// endOutput closes the output after an export that returned err. A partial archive is removed; devices, pipes and
// files that nothing was written to stay.
func endOutput(f *os.File, path string, created bool, err error) error {
	info, statErr := f.Stat()
	if statErr != nil || !info.Mode().IsRegular() {
		return errors.Join(err, statErr, writing(f.Close()))
	}
	written, seekErr := f.Seek(0, io.SeekCurrent)
	err = errors.Join(err, seekErr)
	if err == nil {
		err = writing(f.Truncate(written)) // an older archive was longer
	}
	err = errors.Join(err, writing(f.Close()))
	if err != nil && (created || written > 0) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
