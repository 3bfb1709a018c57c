package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is an open file with the operations of durable writes; OS returns those of the host.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	// Sync returns when the file's data and size are on disk.
	Sync() error
	// WriteBack starts to write a range to disk and does not wait for it. It is a hint that
	// makes a later Sync short, and guarantees nothing.
	WriteBack(off, n int64) error
}

// FS has every step by which durable writes change a disk. It exists so that a test can
// interrupt a sequence of them at each step (internal/inject); OS is the real one.
type FS interface {
	OpenFile(path string, flag int, perm fs.FileMode) (File, error)
	Mkdir(path string, perm fs.FileMode) error
	Remove(path string) error
	Rename(oldPath, newPath string) error
	SyncDir(dir string) error
}

// OS is the host's file system.
type OS struct{}

var _ FS = OS{}

// OpenFile is os.OpenFile.
func (OS) OpenFile(path string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Mkdir is os.Mkdir.
func (OS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// Remove is os.Remove.
func (OS) Remove(path string) error { return os.Remove(path) }

// Rename is os.Rename.
func (OS) Rename(oldPath, newPath string) error { return os.Rename(oldPath, newPath) }

// SyncDir makes the entries of dir durable.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory for syncing: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

type osFile struct{ *os.File }

// WriteBack implements File. A file system without support is not an error: it is a hint, and a
// write error is reported again by Sync.
func (f osFile) WriteBack(off, n int64) error {
	err := unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESPIPE) {
		return nil
	}
	return err
}
