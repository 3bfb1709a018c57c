package btrfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// remove deletes a snapshot's directory with its subvolume.
func remove(dir string) error {
	if sub := filepath.Join(dir, fsName); isSubvolume(sub) {
		if err := removeSubvolume(sub); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// removeSubvolume deletes a subvolume, after nested ones that a container has created.
func removeSubvolume(path string) error {
	err := destroySubvolume(path)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	nested, err := within(path)
	if err != nil {
		return err
	}
	// The content of a read-only one cannot be deleted; from the outermost to the innermost.
	for _, sub := range append([]string{path}, nested...) {
		if err := setReadOnly(sub, false); err != nil {
			return err
		}
	}
	slices.Reverse(nested)
	for _, sub := range append(nested, path) {
		if err := destroySubvolume(sub); err != nil {
			return err
		}
	}
	return nil
}

// within returns the subvolumes below a directory, each after its parent.
func within(dir string) (list []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir && e.IsDir() && isSubvolume(path) {
			list = append(list, path)
		}
		return err
	})
	return list, err
}
