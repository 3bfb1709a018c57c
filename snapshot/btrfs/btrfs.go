// Package btrfs is the snapshot driver on subvolumes of btrfs.
//
// Each snapshot is a directory ROOT/<number> with the subvolume fs, which has the complete file
// system: that of a snapshot with parents begins as the kernel's snapshot of the nearest one, which
// costs the same whatever its size. The file parent has that one's number, by which usage determines
// the snapshot's own storage.
//
// Guarantees: a snapshot appears complete or not at all; the data measured by Commit is on disk, and can no
// longer be written, because the subvolume is made read-only.
//
// Caveats: ROOT has to be on btrfs. Usage reads every file's attributes.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/dirs"
)

// Name is the name by which clients select this driver.
const Name = "btrfs"

const (
	fsName     = "fs"
	parentName = "parent"
)

// Driver is the btrfs driver. Open returns one.
type Driver struct{ dirs *dirs.Dirs }

var _ snapshot.Driver = (*Driver)(nil)

// Open returns a driver with its snapshots in root, which it creates if it is missing. Failed
// precondition if that is not on btrfs, or this process may not create subvolumes there.
func Open(root string) (*Driver, error) {
	d, err := dirs.Open(root, remove)
	if err == nil {
		err = d.Untried(probe(d))
	}
	if err != nil {
		return nil, fmt.Errorf("open btrfs snapshots in %s: %w", root, err)
	}
	return &Driver{dirs: d}, nil
}

func probe(d *dirs.Dirs) (err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.Root(), &st); err != nil {
		return &os.PathError{Op: "statfs", Path: d.Root(), Err: err}
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return fmt.Errorf("not on btrfs: %w", errdefs.ErrFailedPrecondition)
	}
	dir, err := d.Temp()
	if err != nil {
		return fmt.Errorf("probe btrfs: %w", err)
	}
	defer func() { err = errors.Join(err, remove(dir)) }()
	if err := createSubvolume(filepath.Join(dir, fsName)); err != nil {
		return fmt.Errorf("probe btrfs: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return Name }

// Prepare implements snapshot.Driver.
func (d *Driver) Prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) error {
	err := dirs.Check(ctx, id, kind)
	if err == nil {
		err = d.dirs.Create(ctx, id, func(dir string) error { return d.fill(dir, parents, kind) })
	}
	if err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	return nil
}

func (d *Driver) fill(dir string, parents []uint64, kind snapshot.Kind) error {
	fsDir := filepath.Join(dir, fsName)
	if len(parents) == 0 {
		return createSubvolume(fsDir)
	}
	parent := d.FS(parents[0])
	if _, err := os.Stat(parent); err != nil {
		return fmt.Errorf("parent: %w", dirs.NotFound(err))
	}
	if kind == snapshot.KindView {
		return os.Mkdir(fsDir, 0o700) // the view shows the parent itself
	}
	if err := snapshotSubvolume(parent, fsDir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, parentName), strconv.AppendUint(nil, parents[0], 10), 0o600)
}

// Mounts implements snapshot.Driver.
func (d *Driver) Mounts(_ context.Context, id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	return dirs.BindTree(d.FS, id, parents, kind)
}

// Commit implements snapshot.Driver.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	err := dirs.NotFound(setReadOnly(d.FS(id), true))
	if err == nil {
		err = dirs.Sync(d.FS(id))
	}
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: %w", id, err)
	}
	return d.Usage(ctx, id)
}

// Usage implements snapshot.Driver: the difference from the parent, without extents that are
// shared with it.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	parent, err := d.parent(id)
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("measure snapshot %d: %w", id, err)
	}
	own := d.FS(id)
	return dirs.Measure(ctx, own, func(path string, fi fs.FileInfo) (int64, bool, error) {
		if parent != "" && unchanged(filepath.Join(parent, strings.TrimPrefix(path, own)), fi) {
			return 0, false, nil
		}
		return dirs.OwnBytes(path, fi)
	})
}

// parent returns the directory of the snapshot that a snapshot began as, "" if there is none.
func (d *Driver) parent(id uint64) (string, error) {
	text, err := os.ReadFile(d.dirs.Path(id, parentName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return "", fmt.Errorf("read number of the parent: %w: %w", err, errdefs.ErrDataLoss)
	}
	return d.FS(n), nil
}

// unchanged reports whether a file is the one at a path of the parent: a snapshot keeps inode
// numbers and times.
func unchanged(path string, fi fs.FileInfo) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return false
	}
	own := fi.Sys().(*syscall.Stat_t)
	return st.Ino == own.Ino && st.Ctim.Sec == own.Ctim.Sec && st.Ctim.Nsec == own.Ctim.Nsec
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
