// Package xattr reads, copies and removes extended attributes, of symbolic links too.
//
// A file system without support is treated as one on which no file has any, and an attribute that is removed between
// listing and reading as missing. The caller decides which others may be missing, or be lost in a
// copy. Errors are *os.PathError.
package xattr

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// BufferSize is the kernel's limit for a list of names, and for a value: the minimal size of
// the buffers passed in.
const BufferSize = 64 << 10

// Path is the path of a file. The last part is followed only if Follow is set, as it must be for paths of
// descriptors in /proc.
type Path struct {
	Name   string
	Follow bool
}

// names returns the names of a file's attributes.
func (p Path) names(buf []byte) ([]string, error) {
	list := unix.Llistxattr
	if p.Follow {
		list = unix.Listxattr
	}
	n, err := list(p.Name, buf)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: p.Name, Err: err}
	}
	return strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00"), nil
}

// get returns an attribute's value, which is in buf; false if there is none.
func (p Path) get(name string, buf []byte) ([]byte, bool, error) {
	get := unix.Lgetxattr
	if p.Follow {
		get = unix.Getxattr
	}
	n, err := get(p.Name, name, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &os.PathError{Op: "getxattr " + name, Path: p.Name, Err: err}
	}
	return buf[:n], true, nil
}

// Set sets an attribute. The error is the system call's.
func (p Path) Set(name string, value []byte) error {
	if p.Follow {
		return unix.Setxattr(p.Name, name, value, 0)
	}
	return unix.Lsetxattr(p.Name, name, value, 0)
}

// Read returns the attributes of a file that are wanted; nil for none.
func Read(p Path, buf []byte, wanted func(name string) bool) (map[string]string, error) {
	var attrs map[string]string
	err := each(p, buf, wanted, func(name string) error {
		value, ok, err := p.get(name, buf)
		if err != nil || !ok {
			return err
		}
		if attrs == nil {
			attrs = make(map[string]string)
		}
		attrs[name] = string(value)
		return nil
	})
	return attrs, err
}

// Copy copies the attributes of a file that are wanted to another. An error of setting one that may be lost
// is ignored.
func Copy(from, to Path, buf []byte, wanted func(name string) bool, lost func(name string, err error) bool) error {
	return each(from, buf, wanted, func(name string) error {
		value, ok, err := from.get(name, buf)
		if err != nil || !ok {
			return err
		}
		if err := to.Set(name, value); err != nil && !lost(name, err) {
			return &os.PathError{Op: "setxattr " + name, Path: to.Name, Err: err}
		}
		return nil
	})
}

// Remove removes the attributes of a file that are unwanted. An error of removing one that may stay is
// ignored.
func Remove(p Path, buf []byte, unwanted func(name string) bool, stays func(name string, err error) bool) error {
	remove := unix.Lremovexattr
	if p.Follow {
		remove = unix.Removexattr
	}
	return each(p, buf, unwanted, func(name string) error {
		err := remove(p.Name, name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !stays(name, err) {
			return &os.PathError{Op: "removexattr " + name, Path: p.Name, Err: err}
		}
		return nil
	})
}

// each calls do for the chosen attributes of a file.
func each(p Path, buf []byte, chosen func(name string) bool, do func(name string) error) error {
	names, err := p.names(buf)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !chosen(name) {
			continue
		}
		if err := do(name); err != nil {
			return err
		}
	}
	return nil
}
