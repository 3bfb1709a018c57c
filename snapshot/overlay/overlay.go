// Package overlay is the snapshot driver on the kernel's overlay file system.
//
// Each snapshot is a directory ROOT/<number> with fs, its own files, and work, which the
// kernel needs beside a writable fs. Deletions in a layer are character devices 0/0, and
// directories that hide what is below carry the attribute trusted.overlay.opaque, as the
// kernel does it; a layer can therefore be applied straight into fs, without a mount.
//
// Guarantees: a snapshot appears whole or not at all; what Commit measured is on disk.
//
// Caveats: ROOT has to be on a file system that can be an overlay's upper layer (ext4, xfs
// with ftype=1, btrfs, tmpfs; not another overlay). Commit syncs the whole file system
// that ROOT is on, which is cheap beside a sync per file but waits for other writers too.
package overlay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Name is the name clients choose this driver by.
const Name = "overlayfs"

// asidePrefix starts the names of directories on their way out, and of those not yet
// whole; the driver's nonce follows.
const asidePrefix = ".rm-"

// Driver is the overlay driver. Make one with Open.
type Driver struct {
	root    string
	options []string
	// nonce and aside make the names of directories on their way in and out.
	nonce string
	aside atomic.Uint64
}

var _ snapshot.Driver = (*Driver)(nil)

// Open returns a driver that keeps its snapshots in root, which it makes if it is missing.
// It tries a mount there and answers failed precondition if overlay does not work.
func Open(root string) (*Driver, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open overlay snapshots: %w", err)
	}
	if err := durable.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("open overlay snapshots: %w", err)
	}
	d := &Driver{root: abs, nonce: rand.Text()}
	if d.options, err = probe(abs); err != nil {
		return nil, fmt.Errorf("open overlay snapshots in %s: %w", abs, err)
	}
	return d, nil
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return Name }

// Prepare implements snapshot.Driver. The root of the new file system gets the mode and
// the owner that the nearest parent's has.
func (d *Driver) Prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) (err error) {
	if err := check(ctx, id, kind); err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	mode, uid, gid := fs.FileMode(0o755), 0, 0
	if len(parents) > 0 {
		fi, err := os.Stat(d.FS(parents[0]))
		if err != nil {
			return fmt.Errorf("prepare snapshot %d: parent: %w", id, notFound(err))
		}
		st := fi.Sys().(*syscall.Stat_t)
		mode, uid, gid = fi.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid|fs.ModeSetuid), int(st.Uid), int(st.Gid)
	}
	if err := d.Remove(ctx, id); err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	if err := d.create(id, kind, mode, uid, gid); err != nil {
		return fmt.Errorf("prepare snapshot %d: %w", id, err)
	}
	return nil
}

func (d *Driver) create(id uint64, kind snapshot.Kind, mode fs.FileMode, uid, gid int) error {
	tmp := d.asidePath(id)
	err := errors.Join(
		os.Mkdir(tmp, 0o700),
		os.Mkdir(filepath.Join(tmp, "fs"), 0o700),
		os.Chown(filepath.Join(tmp, "fs"), uid, gid),
		os.Chmod(filepath.Join(tmp, "fs"), mode),
	)
	if err == nil && kind == snapshot.KindActive {
		err = os.Mkdir(filepath.Join(tmp, "work"), 0o700)
	}
	if err == nil {
		err = durable.RenameUnsynced(tmp, d.dir(id))
	}
	if err == nil {
		// The record of the snapshot is committed next, and must not outlive it.
		err = durable.SyncDir(d.root)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

// Mounts implements snapshot.Driver.
func (d *Driver) Mounts(id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	switch {
	case id == 0 || kind != snapshot.KindActive && kind != snapshot.KindView:
		return nil, fmt.Errorf("mounts of snapshot %d: a %s snapshot cannot be mounted: make a view of it: %w", id, kind, errdefs.ErrInvalidArgument)
	case kind == snapshot.KindView && len(parents) == 0:
		return bind(d.FS(id), "ro"), nil
	case kind == snapshot.KindView && len(parents) == 1:
		return bind(d.FS(parents[0]), "ro"), nil
	case len(parents) == 0:
		return bind(d.FS(id), "rw"), nil
	}
	options := append([]string(nil), d.options...)
	if kind == snapshot.KindActive {
		options = append(options,
			"workdir="+mount.EscapeOverlayPath(filepath.Join(d.dir(id), "work")),
			"upperdir="+mount.EscapeOverlayPath(d.FS(id)))
	}
	var lower strings.Builder
	lower.WriteString("lowerdir=")
	for i, p := range parents {
		if i > 0 {
			lower.WriteByte(':')
		}
		lower.WriteString(mount.EscapeOverlayPath(d.FS(p)))
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, lower.String())}}, nil
}

func bind(source, access string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: source, Options: []string{access, "rbind"}}}
}

// Close implements snapshot.Driver.
func (d *Driver) Close() error { return nil }

// FS returns the directory that holds a snapshot's own files, for those who apply a layer
// without mounting.
func (d *Driver) FS(id uint64) string { return filepath.Join(d.dir(id), "fs") }

func (d *Driver) dir(id uint64) string { return filepath.Join(d.root, strconv.FormatUint(id, 10)) }

func (d *Driver) asidePath(id uint64) string {
	return filepath.Join(d.root, fmt.Sprintf("%s%s-%d-%d", asidePrefix, d.nonce, id, d.aside.Add(1)))
}

func check(ctx context.Context, id uint64, kind snapshot.Kind) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if id == 0 {
		return fmt.Errorf("number 0 is reserved: %w", errdefs.ErrInvalidArgument)
	}
	if kind != snapshot.KindActive && kind != snapshot.KindView {
		return fmt.Errorf("kind %s: %w", kind, errdefs.ErrInvalidArgument)
	}
	return nil
}

// notFound gives "does not exist" its class.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}
