package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/mount"
)

// apply applies the layer to a snapshot that is attached nowhere, and verifies what came out of the
// decompression.
func (f *filling) apply(ctx context.Context, from coded, mounts []mount.Mount, opts ApplyOptions) (err error) {
	root, how, done, err := place(mounts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if f.alone {
		how = archive.Options{Whiteouts: archive.WhiteoutOverlay, UserXattr: f.userXattr, Alone: true}
	}
	got, result, err := applyStream(ctx, from, f.desc, f.diffID.Algorithm(), root, how, opts)
	if err != nil {
		return err
	}
	if got.Digest != f.diffID {
		return invalidf("its unpacked digest is %s, the image's configuration says %s", got.Digest, f.diffID)
	}
	f.ownRoot = result.Root
	return f.rootOf(root)
}

// place finds the directory to apply a layer to. What an overlay would put into its upper
// directory goes there directly; other snapshots are attached for the while.
func place(mounts []mount.Mount) (root string, opts archive.Options, done func() error, err error) {
	nothing := func() error { return nil }
	if len(mounts) == 1 {
		m := mounts[0]
		if upper, lower, ok := mount.OverlayDirs(m); ok && upper != "" {
			opts.Whiteouts = archive.WhiteoutOverlay
			opts.UserXattr = slices.Contains(m.Options, "userxattr")
			opts.Lower = func() (*os.File, error) { return openLower(m, lower) }
			return upper, opts, nothing, nil
		}
		if m.Type == "bind" && m.Target == "" && slices.Contains(m.Options, "rw") {
			return m.Source, opts, nothing, nil
		}
	}
	dir, err := os.MkdirTemp("", "cleat-unpack-")
	if err != nil {
		return "", opts, nil, fmt.Errorf("make mount point: %w", err)
	}
	if err := mount.All(mounts, dir); err != nil {
		return "", opts, nil, errors.Join(err, os.Remove(dir))
	}
	return dir, opts, func() error {
		if err := mount.UnmountAll(dir, 0); err != nil {
			return err
		}
		return os.Remove(dir)
	}, nil
}

// openLower opens what the layers below make together.
func openLower(m mount.Mount, lower []string) (*os.File, error) {
	if len(lower) == 1 {
		return os.Open(lower[0])
	}
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
		return strings.HasPrefix(o, "upperdir=") || strings.HasPrefix(o, "workdir=")
	})
	return mount.Detached([]mount.Mount{m})
}
