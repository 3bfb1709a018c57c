package dirs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/cleatproject/cleat/snapshot"
)

// Measure adds up the blocks and inodes in dir, a file with several names counted once. size, if not
// nil, returns a file's bytes, or that it is not to be counted.
func Measure(ctx context.Context, dir string, size func(path string, fi fs.FileInfo) (bytes int64, counts bool, err error)) (snapshot.Usage, error) {
	var u snapshot.Usage
	seen := make(map[uint64]struct{})
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return vanished(err, path != dir)
		}
		fi, err := e.Info()
		if err != nil {
			return vanished(err, path != dir)
		}
		st := fi.Sys().(*syscall.Stat_t)
		if st.Nlink > 1 && !fi.IsDir() {
			if _, ok := seen[st.Ino]; ok {
				return nil
			}
			seen[st.Ino] = struct{}{}
		}
		bytes, counts := st.Blocks*512, true
		if size != nil {
			if bytes, counts, err = size(path, fi); err != nil {
				return vanished(err, path != dir)
			}
		}
		if counts {
			u.Size += bytes
			u.Inodes++
		}
		return nil
	})
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("measure snapshot: %w", NotFound(err))
	}
	return u, nil
}

// vanished ignores the error of a file that was removed or replaced while a live snapshot was measured.
func vanished(err error, may bool) error {
	if may && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
		return nil
	}
	return err
}
