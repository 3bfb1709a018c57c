// Package durable performs file writes that must survive a crash.
//
// A file written through this package is seen by others either in its old state or in its
// new state, never in between, and once the call has returned nil the new state survives
// power loss: the data is synced before the name changes, and the directory is synced
// after. It is also the only place in the repository that calls os.Rename.
//
// The functions need no locks of their own: of two writers of one path the last one
// wins, but each leaves a complete file.
//
// Each function is also a method of Disk, which does the same on a given file
// system: so a test can interrupt a sequence of writes at every step of it.
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

// Disk performs the writes of this package on FS. The functions are its methods on the host's
// file system, On(OS{}).
type Disk struct{ FS }

// On returns the writes of this package on a file system.
func On(under FS) Disk { return Disk{under} }

// WriteFile replaces the file at path by data, with exactly the permissions perm (the
// umask is not applied). After a failure the old file, if there was one, is untouched and
// no temporary file is left.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return On(OS{}).WriteFile(path, data, perm)
}

// WriteFile is the function WriteFile.
func (d Disk) WriteFile(path string, data []byte, perm fs.FileMode) error {
	f, err := d.pending(path, data, perm)
	if err != nil {
		return err
	}
	return f.Commit()
}

// ReplaceUnsynced replaces the file as WriteFile does, but syncs nothing: it is complete
// whenever this process dies, and after a power loss it is old, new, empty or gone. It is for
// data that can be computed again; the reader must be able to detect an incomplete file.
func (d Disk) ReplaceUnsynced(path string, data []byte, perm fs.FileMode) error {
	f, err := d.pending(path, data, perm)
	if err != nil {
		return err
	}
	return f.finish(func(File) error { return nil })
}

func (d Disk) pending(path string, data []byte, perm fs.FileMode) (*PendingFile, error) {
	f, err := d.CreateAtomic(path, perm)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Abort())
	}
	return f, nil
}

// Rename renames oldPath to newPath and syncs the parents of both. It replaces a file at
// newPath, and an empty directory by a directory.
func Rename(oldPath, newPath string) error { return On(OS{}).RenameSynced(oldPath, newPath) }

// RenameSynced is the function Rename.
func (d Disk) RenameSynced(oldPath, newPath string) error {
	if err := d.RenameUnsynced(oldPath, newPath); err != nil {
		return err
	}
	oldDir, newDir := filepath.Dir(oldPath), filepath.Dir(newPath)
	if err := d.SyncDir(newDir); err != nil {
		return err
	}
	if oldDir == newDir {
		return nil
	}
	return d.SyncDir(oldDir)
}

// RenameUnsynced renames without any sync. It is for moving things out of sight before
// they are deleted, where a crash that brings the old name back does no harm.
func RenameUnsynced(oldPath, newPath string) error {
	return On(OS{}).RenameUnsynced(oldPath, newPath)
}

// RenameUnsynced is the function RenameUnsynced.
func (d Disk) RenameUnsynced(oldPath, newPath string) error {
	if err := d.Rename(oldPath, newPath); err != nil {
		return fmt.Errorf("rename file: %w", err)
	}
	return nil
}

// SyncDir makes the entries of dir durable.
func SyncDir(dir string) error { return OS{}.SyncDir(dir) }

// SyncFile syncs a file that was written elsewhere.
func (d Disk) SyncFile(path string) error {
	f, err := d.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open file for syncing: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// RemoveTree removes a directory and its content, the entry named first before all others, so
// that the rest of a crash is recognised by its absence. Nothing is synced. A missing directory
// is not an error.
func (d Disk) RemoveTree(dir, first string) error {
	err := d.Remove(filepath.Join(dir, first))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = d.RemoveTree(path, first)
		} else {
			err = d.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := d.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// MkdirAll creates path and its missing parents, each durable in its parent. Existing
// directories are not changed. perm is used for each created directory, less the
// umask.
func MkdirAll(path string, perm fs.FileMode) error { return On(OS{}).MkdirAll(path, perm) }

// MkdirAll is the function MkdirAll.
func (d Disk) MkdirAll(path string, perm fs.FileMode) error {
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
		if err := d.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := d.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	return d.SyncDir(parent)
}
