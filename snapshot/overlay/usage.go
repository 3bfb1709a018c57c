package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/snapshot"
)

// Commit implements snapshot.Driver with one syncfs.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	f, err := os.Open(d.FS(id))
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: %w", id, notFound(err))
	}
	err = unix.Syncfs(int(f.Fd()))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("commit snapshot %d: sync its file system: %w", id, err)
	}
	return d.Usage(ctx, id)
}

// Usage implements snapshot.Driver: the blocks and inodes in fs, a file with several names
// counted once.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	var u snapshot.Usage
	seen := make(map[uint64]struct{})
	err := filepath.WalkDir(d.FS(id), func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return vanished(err, path != d.FS(id))
		}
		fi, err := e.Info()
		if err != nil {
			return vanished(err, path != d.FS(id))
		}
		st := fi.Sys().(*syscall.Stat_t)
		if st.Nlink > 1 && !fi.IsDir() {
			if _, ok := seen[st.Ino]; ok {
				return nil
			}
			seen[st.Ino] = struct{}{}
		}
		u.Size += st.Blocks * 512
		u.Inodes++
		return nil
	})
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("measure snapshot %d: %w", id, notFound(err))
	}
	return u, nil
}

// vanished forgives a file that went away while a live snapshot was measured.
func vanished(err error, may bool) error {
	if may && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
