// Package erofs is the snapshot driver that stores each layer as one read-only EROFS image.
//
// On disk an active snapshot is ROOT/<number> with fs, its own files, and work, as in the overlay
// driver; committing it turns fs into the image layer.erofs. Images are mounted on
// ROOT/<number>/lower if they are parents of other snapshots, and containers stack these under an overlay.
//
// Guarantees: a snapshot appears complete or not at all; the data measured by Commit is on disk; a committed
// layer cannot be changed, and if the file system supports fs-verity, a change of its
// image on the disk is detected when it is read.
//
// Caveats: the kernel must have erofs and overlay, and mkfs.erofs (Debian's erofs-utils) must be
// at one of the system's paths. The images' mounts are in the mount namespace of this process; a
// mounted overlay keeps the parts it needs, so that Close can remove them.
package erofs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/dirs"
	"github.com/cleatproject/cleat/snapshot/internal/treecopy"
)

// Name is the name by which clients select this driver.
const Name = "erofs"

const (
	fsName    = "fs"
	workName  = "work"
	imageName = "layer.erofs"
	lowerName = "lower"
)

// Driver is the erofs driver. Open returns one.
type Driver struct {
	dirs    *dirs.Dirs
	options []string // of overlay mounts
	mkfs    string

	// mounting is held while an image is mounted, or fs is restored from one.
	mounting sync.Mutex
}

var _ snapshot.Layered = (*Driver)(nil)

// Open returns a driver with its snapshots in root, which it creates if it is missing. Failed
// precondition if this host does not meet the requirements.
func Open(root string) (*Driver, error) {
	d := &Driver{}
	var err error
	if d.dirs, err = dirs.Open(root, remove); err == nil {
		err = d.dirs.Untried(d.probe())
	}
	if err != nil {
		return nil, fmt.Errorf("open erofs snapshots in %s: %w", root, err)
	}
	return d, nil
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
	like := ""
	if len(parents) > 0 {
		var err error
		if like, err = d.lower(parents[0]); err != nil {
			return fmt.Errorf("parent: %w", err)
		}
	}
	if err := dirs.MakeRoot(filepath.Join(dir, fsName), like); err != nil {
		return err
	}
	if kind != snapshot.KindActive {
		return nil
	}
	return os.Mkdir(filepath.Join(dir, workName), 0o700)
}

// Mounts implements snapshot.Driver. It mounts the images of the parents.
func (d *Driver) Mounts(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	if err := dirs.CheckMounts(id, kind); err != nil {
		return nil, err
	}
	if kind == snapshot.KindActive {
		if err := d.restore(ctx, id); err != nil {
			return nil, fmt.Errorf("mounts of snapshot %d: %w", id, err)
		}
	}
	lower := make([]string, len(parents))
	for i, p := range parents {
		var err error
		if lower[i], err = d.lower(p); err != nil {
			return nil, fmt.Errorf("mounts of snapshot %d: parent %d: %w", id, p, err)
		}
	}
	switch {
	case len(parents) == 0 && kind == snapshot.KindView:
		return dirs.Bind(d.FS(id), "ro"), nil
	case len(parents) == 0:
		return dirs.Bind(d.FS(id), "rw"), nil
	case len(parents) == 1 && kind == snapshot.KindView:
		return dirs.Bind(lower[0], "ro"), nil
	case kind == snapshot.KindView:
		return dirs.Overlay(d.options, lower, "", ""), nil
	default:
		return dirs.Overlay(d.options, lower, d.FS(id), d.dirs.Path(id, workName)), nil
	}
}

// lower mounts the image of a committed snapshot, if it is not mounted, and returns the mount point.
func (d *Driver) lower(id uint64) (string, error) {
	d.mounting.Lock()
	defer d.mounting.Unlock()
	return d.lowerLocked(id)
}

func (d *Driver) lowerLocked(id uint64) (string, error) {
	at, image := d.dirs.Path(id, lowerName), d.image(id)
	if isMounted(at) {
		return at, nil
	}
	if _, err := os.Stat(image); err != nil {
		return "", dirs.NotFound(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return at, attach(image, at)
}

func attach(image, at string) error {
	return mount.All([]mount.Mount{{Type: "erofs", Source: image, Options: []string{"ro"}}}, at)
}

func isMounted(at string) bool {
	var st unix.Statfs_t
	return unix.Statfs(at, &st) == nil && st.Type == unix.EROFS_SUPER_MAGIC_V1
}

// restore recreates fs from the image of a snapshot whose commit was not recorded because of a crash.
func (d *Driver) restore(ctx context.Context, id uint64) error {
	d.mounting.Lock()
	defer d.mounting.Unlock()
	if _, err := os.Stat(d.FS(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(d.image(id)); err != nil {
		return nil // mounting reports the missing file
	}
	at, err := d.lowerLocked(id)
	if err != nil {
		return err
	}
	tmp := d.dirs.Path(id, ".fs")
	err = os.RemoveAll(tmp)
	if err == nil {
		err = treecopy.Copy(ctx, at, tmp)
	}
	if err == nil {
		err = mount.UnmountAll(at, 0)
	}
	if err == nil {
		err = os.Mkdir(d.dirs.Path(id, workName), 0o700)
	}
	if err == nil {
		err = os.Remove(d.image(id))
	}
	if err == nil {
		err = durable.Rename(tmp, d.FS(id))
	}
	return err
}

// Commit implements snapshot.Driver.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	if err := d.commit(ctx, id); err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: %w", id, err)
	}
	return d.Usage(ctx, id)
}

func (d *Driver) commit(ctx context.Context, id uint64) error {
	image := d.image(id)
	if _, err := os.Stat(image); errors.Is(err, fs.ErrNotExist) {
		if err := d.build(ctx, d.FS(id), image); err != nil {
			return dirs.NotFound(err)
		}
	}
	if err := os.RemoveAll(d.FS(id)); err != nil {
		return err
	}
	return os.RemoveAll(d.dirs.Path(id, workName))
}

// Usage implements snapshot.Driver: the image and its inodes, or the files in fs.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	fi, err := os.Stat(d.image(id))
	if errors.Is(err, fs.ErrNotExist) {
		return dirs.Measure(ctx, d.FS(id), nil)
	}
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("measure snapshot %d: %w", id, err)
	}
	at, err := d.lower(id)
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("measure snapshot %d: %w", id, err)
	}
	u, err := dirs.Measure(ctx, at, func(string, fs.FileInfo) (int64, bool, error) { return 0, true, nil })
	u.Size = fi.Sys().(*syscall.Stat_t).Blocks * 512
	return u, err
}

// Remove implements snapshot.Driver.
func (d *Driver) Remove(ctx context.Context, id uint64) error { return d.dirs.Remove(ctx, id) }

// Cleanup implements snapshot.Driver.
func (d *Driver) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
	return d.dirs.Cleanup(ctx, live)
}

// UserXattr implements snapshot.Layered.
func (d *Driver) UserXattr() bool { return slices.Contains(d.options, "userxattr") }

// Close unmounts the images; mounted overlays stay valid.
func (d *Driver) Close() error {
	ids, err := d.dirs.IDs()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if at := d.dirs.Path(id, lowerName); isMounted(at) {
			errs = append(errs, mount.UnmountAll(at, unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}

// FS returns the directory with the own files of a snapshot that is not committed.
func (d *Driver) FS(id uint64) string { return d.dirs.Path(id, fsName) }

func (d *Driver) image(id uint64) string { return d.dirs.Path(id, imageName) }

// remove deletes a snapshot's directory; nothing may be mounted in it.
func remove(dir string) error {
	if err := mount.UnmountAll(filepath.Join(dir, lowerName), unix.MNT_DETACH); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
