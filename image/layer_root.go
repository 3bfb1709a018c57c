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

// apply applies the layer to a snapshot that is not mounted anywhere, and verifies the decompressed
// bytes.
func (f *filling) apply(ctx context.Context, from layerStream, mounts []mount.Mount, opts ApplyOptions) (err error) {
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
		return invalidf("unpacked digest %s, expected %s by the image's configuration", got.Digest, f.diffID)
	}
	f.ownRoot = result.Root
	return f.rootOf(root)
}

// place returns the directory to apply a layer to. Files of an overlay's upper directory are
// written there directly; other snapshots are mounted temporarily.
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

// openLower opens the merged lower layers.
func openLower(m mount.Mount, lower []string) (*os.File, error) {
	if len(lower) == 1 {
		return os.Open(lower[0])
	}
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
		return strings.HasPrefix(o, "upperdir=") || strings.HasPrefix(o, "workdir=")
	})
	return mount.Detached([]mount.Mount{m})
}
