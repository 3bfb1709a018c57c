package dirs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Check refuses arguments that no driver can prepare.
func Check(ctx context.Context, id uint64, kind snapshot.Kind) error {
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

// CheckMounts refuses snapshots without mounts.
func CheckMounts(id uint64, kind snapshot.Kind) error {
	if id == 0 || kind != snapshot.KindActive && kind != snapshot.KindView {
		return fmt.Errorf("mounts of snapshot %d: a %s snapshot cannot be mounted: %w", id, kind, errdefs.ErrInvalidArgument)
	}
	return nil
}

// NotFound sets the class of fs.ErrNotExist.
func NotFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// Bind returns a directory as the only mount of a snapshot; access is "ro" or "rw".
func Bind(source, access string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: source, Options: []string{access, "rbind"}}}
}

// BindTree returns the mounts of a snapshot whose driver has a complete tree for each, at fs of its id: for an active
// one its own, for a view its parent's, of which it has no copy. Snapshots refused by CheckMounts have none.
func BindTree(fs func(id uint64) string, id uint64, parents []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	if err := CheckMounts(id, kind); err != nil {
		return nil, err
	}
	switch {
	case kind == snapshot.KindActive:
		return Bind(fs(id), "rw"), nil
	case len(parents) > 0:
		return Bind(fs(parents[0]), "ro"), nil
	default:
		return Bind(fs(id), "ro"), nil
	}
}

// MakeRoot creates the root directory of a file system, with mode and owner of like, or if that is
// "", with mode 0755 and owned by root.
func MakeRoot(dir, like string) error {
	mode, uid, gid := fs.FileMode(0o755), 0, 0
	if like != "" {
		fi, err := os.Stat(like)
		if err != nil {
			return fmt.Errorf("parent: %w", NotFound(err))
		}
		st := fi.Sys().(*syscall.Stat_t)
		mode, uid, gid = fi.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid|fs.ModeSetuid), int(st.Uid), int(st.Gid)
	}
	return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, uid, gid), os.Chmod(dir, mode))
}

// Sync syncs the file system of path.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return NotFound(err)
	}
	err = unix.Syncfs(int(f.Fd()))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync file system of %s: %w", path, err)
	}
	return nil
}
