package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func imageConvertCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "convert [FLAGS] IMAGE NAME", Short: "convert an image to another compression or format",
		Long: "The files stay the same, and every blob that need not change keeps its digest. Without --platform and\n" +
			"--all-platforms the local platforms are converted, and the others stay as they are.",
		Args: argCount(2, 2), ValidArgsFunction: a.completeArgs(false, listImages),
	}
	fs := cmd.Flags()
	var r client.ConvertRequest
	choices := make(map[string]*bool)
	for _, c := range [][2]string{
		{"gzip", "compress layers with gzip"},
		{"zstd", "compress layers with zstd"},
		{"uncompressed", "do not compress layers"},
		{"oci", "use OCI media types"},
		{"docker", "use Docker media types (schema 2)"},
	} {
		choices[c[0]] = fs.Bool(c[0], false, c[1])
	}
	fs.IntVar(&r.Level, "compression-level", 0, "`LEVEL` of the compression; 0 is the default of its type")
	fs.StringVar(&r.Platform, "platform", "", "convert the image for `PLATFORM` only: OS/ARCH[/VARIANT]")
	fs.BoolVar(&r.AllPlatforms, "all-platforms", false, "convert every platform; fail if one is not local")
	fs.IntVar(&r.MaxConcurrent, "max-concurrent", 2, "convert `NUMBER` layers in parallel")
	quiet := fs.BoolP("quiet", "q", false, "do not show progress")
	inGroup(fs, groupImage, "gzip", "zstd", "uncompressed", "oci", "docker", "compression-level", "platform", "all-platforms")
	inGroup(fs, groupOutput, "quiet")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		r.Source, r.Target = args[0], args[1]
		if r.Compression, err = oneOf(choices, "gzip", "zstd", "uncompressed"); err != nil {
			return err
		}
		if r.Format, err = oneOf(choices, "oci", "docker"); err != nil {
			return err
		}
		if r.MaxConcurrent < 1 {
			return usage(cmd.CommandPath(), fmt.Errorf("max-concurrent %d: want 1 or more: %w", r.MaxConcurrent, errdefs.ErrInvalidArgument))
		}
		return convert(cmd.Context(), a, r, *quiet)
	}
	return cmd
}

// oneOf returns the one given flag of a set whose flags exclude each other; "" for none.
func oneOf(given map[string]*bool, names ...string) (string, error) {
	var found []string
	for _, n := range names {
		if *given[n] {
			found = append(found, n)
		}
	}
	if len(found) > 1 {
		return "", usage("cleat image convert", fmt.Errorf("--%s: flags exclude each other: %w", strings.Join(found, " and --"), errdefs.ErrInvalidArgument))
	}
	return strings.Join(found, ""), nil
}

func convert(ctx context.Context, a *app, r client.ConvertRequest, quiet bool) error {
	// An interrupt cancels the call; the daemon undoes it before it answers.
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
