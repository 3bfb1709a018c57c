// Package native is the snapshot driver that copies, and needs no support by the kernel.
//
// Each snapshot is a directory ROOT/<number> with fs, the complete file system; that of an active one
// with parents begins as a copy of the nearest one's. If the file system can share the contents
// of files (btrfs, xfs with reflinks), the copy costs only their inodes.
//
// Guarantees: a snapshot appears complete or not at all; the data measured by Commit is on disk.
//
// Caveats: without such a file system every container costs the time and space of its image. It is
// for hosts where overlay does not work, and for comparison.
package native

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/dirs"
	"github.com/cleatproject/cleat/snapshot/internal/treecopy"
)

// Name is the name by which clients select this driver.
const Name = "native"

const fsName = "fs"

// Driver is the copying driver. Open returns one.
type Driver struct{ dirs *dirs.Dirs }

var _ snapshot.Limited = (*Driver)(nil)

// Open returns a driver with its snapshots in root, which it creates if it is missing.
func Open(root string) (*Driver, error) {
	d, err := dirs.Open(root, nil)
	if err != nil {
		return nil, fmt.Errorf("open native snapshots: %w", err)
	}
	return &Driver{dirs: d}, nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return Name }

// Prepare implements snapshot.Driver.
func (d *Driver) Prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) error {
	err := dirs.Check(ctx, id, kind)
	if err == nil {
		err = d.dirs.Create(ctx, id, func(dir string) error { return d.fill(ctx, dir, parents, kind) })
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	return nil
}

// PrepareLimited implements snapshot.Limited. The copy of the parent counts.
func (d *Driver) PrepareLimited(ctx context.Context, id uint64, parents []uint64, bytes int64) error {
	err := dirs.Check(ctx, id, snapshot.KindActive)
	if err == nil {
		err = d.dirs.CreateLimited(ctx, id, bytes, func(dir string) error {
			return d.fill(ctx, dir, parents, snapshot.KindActive)
		})
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

func (d *Driver) fill(ctx context.Context, dir string, parents []uint64, kind snapshot.Kind) error {
	fsDir := filepath.Join(dir, fsName)
	if len(parents) == 0 {
		return dirs.MakeRoot(fsDir, "")
	}
	parent := d.FS(parents[0])
	if _, err := os.Stat(parent); err != nil {
		return fmt.Errorf("parent: %w", dirs.NotFound(err))
	}
	if kind == snapshot.KindView {
		return os.Mkdir(fsDir, 0o700) // the view shows the parent itself
	}
	return treecopy.Copy(ctx, parent, fsDir)
}

// Mounts implements snapshot.Driver.
func (d *Driver) Mounts(_ context.Context, id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	return dirs.BindTree(d.FS, id, parents, kind)
}

// Commit implements snapshot.Driver.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	if err := dirs.Sync(d.FS(id)); err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: %w", id, err)
	}
	return d.Usage(ctx, id)
}

// Usage implements snapshot.Driver: the inodes, and the blocks that are not shared with others.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	return dirs.Measure(ctx, d.FS(id), dirs.OwnBytes)
}

// Remove implements snapshot.Driver.
func (d *Driver) Remove(ctx context.Context, id uint64) error { return d.dirs.Remove(ctx, id) }

// Cleanup implements snapshot.Driver.
func (d *Driver) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
	return d.dirs.Cleanup(ctx, live)
}

// Close implements snapshot.Driver.
func (d *Driver) Close() error { return nil }

// FS returns the directory with a snapshot's file system.
func (d *Driver) FS(id uint64) string { return d.dirs.Path(id, fsName) }
