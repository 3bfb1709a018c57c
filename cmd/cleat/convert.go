package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func imageConvertCommand() command {
	return command{
		name: "image convert", args: "IMAGE NAME", min: 2, max: 2,
		short: "make an image with other compression or documents",
		detail: "The files are the same, and what need not change keeps its digest. Without --platform and\n" +
			"--all-platforms the platforms that are here are converted, and the others stay as they are.",
		setup: func(fs *pflag.FlagSet) action {
			var r client.ConvertRequest
			choices := make(map[string]*bool)
			for _, c := range [][2]string{
				{"gzip", "compress layers with gzip"}, {"zstd", "compress layers with zstd"}, {"uncompressed", "do not compress layers"},
				{"oci", "documents as OCI has them"}, {"docker", "documents as Docker has them (schema 2)"},
			} {
				choices[c[0]] = fs.Bool(c[0], false, c[1])
			}
			fs.IntVar(&r.Level, "compression-level", 0, "`level` of the compression; 0 is its default")
			fs.StringVar(&r.Platform, "platform", "", "only the image for `os/arch[/variant]`")
			fs.BoolVar(&r.AllPlatforms, "all-platforms", false, "every platform; an error where one is not here")
			fs.IntVar(&r.MaxConcurrent, "max-concurrent", 2, "`number` of layers converted at the same time")
			quiet := fs.BoolP("quiet", "q", false, "show no progress")
			return func(ctx context.Context, a *app, args []string) (err error) {
				r.Source, r.Target = args[0], args[1]
				if r.Compression, err = oneOf(choices, "gzip", "zstd", "uncompressed"); err != nil {
					return err
				}
				if r.Format, err = oneOf(choices, "oci", "docker"); err != nil {
					return err
				}
				if r.MaxConcurrent < 1 {
					return usage("cleat image convert", fmt.Errorf("max-concurrent %d: want 1 or more: %w", r.MaxConcurrent, errdefs.ErrInvalidArgument))
				}
				return convert(ctx, a, r, *quiet)
			}
		},
	}
}

// oneOf returns the flag that was given of those that exclude each other; "" for none.
func oneOf(given map[string]*bool, names ...string) (string, error) {
	var found []string
	for _, n := range names {
		if *given[n] {
			found = append(found, n)
		}
	}
	if len(found) > 1 {
		return "", usage("cleat image convert", fmt.Errorf("--%s: give one of them: %w", strings.Join(found, " and --"), errdefs.ErrInvalidArgument))
	}
	return strings.Join(found, ""), nil
}

func convert(ctx context.Context, a *app, r client.ConvertRequest, quiet bool) error {
	// An interrupt cancels the call, and the daemon's answer is that it has undone it.
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		bars := a.newBars(quiet)
		img, err := c.Convert(ctx, r, bars.update)
		bars.finish()
		if errdefs.IsInvalidArgument(err) {
			return usage("cleat image convert", err)
		}
		if err != nil {
			return err
		}
		return writeLines(a.stdout, []string{pinned(img)})
	})
}
