// Package overlay is the snapshot driver on the kernel's overlay file system.
//
// Each snapshot is a directory ROOT/<number> with fs, its own files, and work, which the
// kernel needs next to a writable fs. Deletions in a layer are character devices 0/0, and
// directories that hide lower ones have the attribute trusted.overlay.opaque, as the
// kernel does it; a layer can therefore be applied directly to fs, without a mount.
//
// A limited snapshot has fs and work in a project of its own, see snapshot/internal/quota.
//
// Guarantees: a snapshot appears complete or not at all; the data measured by Commit is on disk.
//
// Caveats: ROOT has to be on a file system that can be an overlay's upper layer (ext4, xfs
// with ftype=1, btrfs, tmpfs; not another overlay). Commit syncs the whole file system
// of ROOT, which is cheap compared to a sync per file but waits for other writers too.
package overlay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/dirs"
)

// Name is the name by which clients select this driver.
const Name = "overlayfs"

// Driver is the overlay driver. Open returns one.
type Driver struct {
	dirs    *dirs.Dirs
	options []string
}

var (
	_ snapshot.Layered = (*Driver)(nil)
	_ snapshot.Limited = (*Driver)(nil)
)

// Open returns a driver with its snapshots in root, which it creates if it is missing.
// It tries a mount there and returns failed precondition if overlay does not work.
func Open(root string) (*Driver, error) {
	d, err := dirs.Open(root, nil)
	if err != nil {
		return nil, fmt.Errorf("open overlay snapshots: %w", err)
	}
	options, err := dirs.OverlayOptions(d)
	if err != nil {
		return nil, fmt.Errorf("open overlay snapshots in %s: %w", d.Root(), err)
	}
	return &Driver{dirs: d, options: options}, nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return Name }

// Prepare implements snapshot.Driver. The root of the new file system gets the mode and
// the owner of the nearest parent's.
func (d *Driver) Prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) (err error) {
	err = dirs.Check(ctx, id, kind)
	if err == nil {
		err = d.dirs.Create(ctx, id, func(dir string) error { return d.fill(dir, parents, kind) })
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	return nil
}

// PrepareLimited implements snapshot.Limited.
func (d *Driver) PrepareLimited(ctx context.Context, id uint64, parents []uint64, bytes int64) error {
	err := dirs.Check(ctx, id, snapshot.KindActive)
	if err == nil {
		err = d.dirs.CreateLimited(ctx, id, bytes, func(dir string) error { return d.fill(dir, parents, snapshot.KindActive) })
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	return nil
}

// SetLimit implements snapshot.Limited.
func (d *Driver) SetLimit(_ context.Context, id uint64, bytes int64) error {
	return d.dirs.SetLimit(id, bytes)
}

func (d *Driver) fill(dir string, parents []uint64, kind snapshot.Kind) error {
	like := ""
	if len(parents) > 0 {
		like = d.FS(parents[0])
	}
	if err := dirs.MakeRoot(filepath.Join(dir, "fs"), like); err != nil {
		return err
	}
	if kind != snapshot.KindActive {
		return nil
	}
	return os.Mkdir(filepath.Join(dir, "work"), 0o700)
}

// Mounts implements snapshot.Driver.
func (d *Driver) Mounts(_ context.Context, id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	if err := dirs.CheckMounts(id, kind); err != nil {
		return nil, err
	}
	switch {
	case kind == snapshot.KindView && len(parents) == 0:
		return dirs.Bind(d.FS(id), "ro"), nil
	case kind == snapshot.KindView && len(parents) == 1:
		return dirs.Bind(d.FS(parents[0]), "ro"), nil
	case len(parents) == 0:
		return dirs.Bind(d.FS(id), "rw"), nil
	}
	lower := make([]string, len(parents))
	for i, p := range parents {
		lower[i] = d.FS(p)
	}
	if kind == snapshot.KindView {
		return dirs.Overlay(d.options, lower, "", ""), nil
	}
	return dirs.Overlay(d.options, lower, d.FS(id), d.dirs.Path(id, "work")), nil
}

// Commit implements snapshot.Driver with one syncfs.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	if err := dirs.Sync(d.FS(id)); err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: %w", id, err)
	}
	return d.Usage(ctx, id)
}

// Usage implements snapshot.Driver: the blocks and inodes in fs.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	return dirs.Measure(ctx, d.FS(id), nil)
}

// Remove implements snapshot.Driver.
func (d *Driver) Remove(ctx context.Context, id uint64) error { return d.dirs.Remove(ctx, id) }

// Cleanup implements snapshot.Driver.
func (d *Driver) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
	return d.dirs.Cleanup(ctx, live)
}

// UserXattr implements snapshot.Layered.
func (d *Driver) UserXattr() bool { return slices.Contains(d.options, "userxattr") }

// Close implements snapshot.Driver.
func (d *Driver) Close() error { return nil }

// FS returns the directory with a snapshot's own files, for applying a layer
// without mounting.
func (d *Driver) FS(id uint64) string { return d.dirs.Path(id, "fs") }
