// Package inject injects faults: its file system calls a function, before each step that
// changes the disk, which decides whether the step fails.
//
// A store gets its file system from its caller; a test passes one of these.
// The function sees every step in order and can count them, fail a chosen one
// with a chosen error, or kill the process there. Nothing is global: two
// stores in one test have faults of their own.
//
// A failing write has written the first half of its bytes, as on a full disk or a
// kill in the middle. Any other failing step has done nothing.
package inject

import (
	"io/fs"
	"os"

	"github.com/cleatproject/cleat/internal/durable"
)

// Op is one step that changes the disk: "create", "mkdir", "write", "truncate", "chmod",
// "sync", "rename", "remove" or "syncdir", and its path.
type Op struct{ Verb, Path string }

// FS is a file system whose steps At may fail. At may be called concurrently.
type FS struct {
	Under durable.FS
	At    func(Op) error
}

var _ durable.FS = FS{}

// OpenFile implements durable.FS. Opening for reading is not a step.
func (f FS) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.At(Op{"create", path}); err != nil {
			return nil, err
		}
	}
	file, err := f.Under.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, f.At}, nil
}

// Mkdir implements durable.FS.
func (f FS) Mkdir(path string, perm fs.FileMode) error {
	if err := f.At(Op{"mkdir", path}); err != nil {
		return err
	}
	return f.Under.Mkdir(path, perm)
}

// Remove implements durable.FS.
func (f FS) Remove(path string) error {
	if err := f.At(Op{"remove", path}); err != nil {
		return err
	}
	return f.Under.Remove(path)
}

// Rename implements durable.FS; the path of its Op is the new one.
func (f FS) Rename(oldPath, newPath string) error {
	if err := f.At(Op{"rename", newPath}); err != nil {
		return err
	}
	return f.Under.Rename(oldPath, newPath)
}

// SyncDir implements durable.FS.
func (f FS) SyncDir(dir string) error {
	if err := f.At(Op{"syncdir", dir}); err != nil {
		return err
	}
	return f.Under.SyncDir(dir)
}

type faultyFile struct {
	durable.File
	at func(Op) error
}

func (f faultyFile) Write(p []byte) (int, error) {
	if err := f.at(Op{"write", f.Name()}); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // the fault's error is returned
		return n, err
	}
	return f.File.Write(p)
}

func (f faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.at(Op{"write", f.Name()}); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off) // as in Write
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f faultyFile) Truncate(size int64) error {
	if err := f.at(Op{"truncate", f.Name()}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f faultyFile) Chmod(mode fs.FileMode) error {
	if err := f.at(Op{"chmod", f.Name()}); err != nil {
		return err
	}
	return f.File.Chmod(mode)
}

func (f faultyFile) Sync() error {
	if err := f.at(Op{"sync", f.Name()}); err != nil {
		return err
	}
	return f.File.Sync()
}
