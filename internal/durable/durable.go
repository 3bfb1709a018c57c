// Package durable is the one home of file writes that must survive a crash.
//
// A file written through this package is seen by others either in its old state or in its
// new state, never in between, and once the call has returned nil the new state survives
// power loss: the data is synced before the name changes, and the directory is synced
// after. It is also the only place in the repository that calls os.Rename.
//
// The functions need no locks of their own: two writers of one path race for the last
// word, but each leaves a whole file.
//
// Do not use it for data that may be lost or can be computed again: each call costs at
// least two syncs.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile replaces the file at path by data, with exactly the permissions perm (the
// umask is not applied). After a failure the old file, if there was one, is untouched and
// no temporary file is left.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := CreateAtomic(path, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Abort())
	}
	return f.Commit()
}

// Rename renames oldPath to newPath and syncs the parents of both. It replaces a file at
// newPath, and an empty directory by a directory.
func Rename(oldPath, newPath string) error {
	if err := os.Rename(oldPath, newPath); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	oldDir, newDir := filepath.Dir(oldPath), filepath.Dir(newPath)
	if err := SyncDir(newDir); err != nil {
		return err
	}
	if oldDir == newDir {
		return nil
	}
	return SyncDir(oldDir)
}

// RenameUnsynced renames without any sync. It is for moving things out of sight before
// they are deleted, where a crash that brings the old name back does no harm.
func RenameUnsynced(oldPath, newPath string) error {
	if err := os.Rename(oldPath, newPath); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	return nil
}

// SyncDir makes the entries of dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync it: %w", err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// MkdirAll makes path and the parents it lacks, each durable in its parent. Directories
// that exist are left as they are. perm is used for each directory it makes, less the
// umask.
func MkdirAll(path string, perm fs.FileMode) error {
	switch fi, err := os.Stat(path); {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("make directory: %w", &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR})
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make directory: %w", err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return SyncDir(parent)
}
