package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/mount"
)

// apply applies the layer's blob to a snapshot that is attached nowhere, and verifies what
// came out of the decompression.
func (f *filling) apply(ctx context.Context, blob Blob, mounts []mount.Mount, helpers []archive.Helper) (err error) {
	root, opts, done, err := place(mounts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if f.alone {
		opts = archive.Options{Whiteouts: archive.WhiteoutOverlay, UserXattr: f.userXattr, Alone: true}
	}
	got, result, err := applyBlob(ctx, blob, root, opts, f.diffID.Algorithm(), helpers)
	if err != nil {
		return err
	}
	if got != f.diffID {
		return invalidf("its unpacked digest is %s, the image's configuration says %s", got, f.diffID)
	}
	f.ownRoot = result.Root
	return f.rootOf(root)
}

// applyBlob applies a layer, compressed or not, to a directory, and returns the digest of what it is
// uncompressed.
func applyBlob(
	ctx context.Context, blob Blob, root string, opts archive.Options, algorithm digest.Algorithm, helpers []archive.Helper,
) (_ digest.Digest, result archive.Result, err error) {
	plain, err := archive.Decompress(io.NewSectionReader(blob, 0, blob.Size()), helpers...)
	if err != nil {
		return "", result, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	verifier := algorithm.Digester()
	ahead := archive.Ahead(io.TeeReader(plain, verifier.Hash()))
	defer func() { err = errors.Join(err, ahead.Close()) }()
	if result, err = archive.Apply(ctx, root, ahead, opts); err != nil {
		return "", result, err
	}
	return verifier.Digest(), result, nil
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
