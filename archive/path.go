package archive

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cleanName converts an entry's name to a path below the root without "." and slashes at
// the ends. The root itself is "". Names that climb are refused, not clamped.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", invalidf("path has %d bytes: maximum is %d", len(name), maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", invalidf("path has a NUL byte")
	}
	for rest, more := name, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if part == ".." {
			return "", invalidf("path leads upwards by \"..\"")
		}
		if len(part) > maxName {
			return "", invalidf("path has a part of %d bytes: maximum is %d", len(part), maxName)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// splitName returns the directory ("" for the root) and the last part of a clean path.
func splitName(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// parentDir is the directory of the previous entry, kept open since the next one is usually in
// it too.
type parentDir struct {
	path   string
	fd     int // -1 if there is none
	setgid bool
}

func (p *parentDir) drop() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
	}
	p.fd = -1
}

// openParent sets a.parent to the directory at dir, creating missing parts. The opened
// directory is inside the root whatever the archive does to the names on the way, and the
// names mean the same until something is removed (see remove), which drops it.
func (a *applier) openParent(dir string) error {
	if a.parent.fd >= 0 && a.parent.path == dir {
		return nil
	}
	a.parent.drop()
	fd, err := a.open.Open(a.root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		fd, err = a.makeParents(dir)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return &os.PathError{Op: "fstat", Path: dir, Err: err}
	}
	a.parent = parentDir{path: dir, fd: fd, setgid: st.Mode&unix.S_ISGID != 0}
	return nil
}

// remove removes name in the directory dir, with all below it.
func (a *applier) remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	// os.RemoveAll uses descriptors from here on and follows no link. name is one
	// part, and never "." or "..".
	if err := os.RemoveAll(fdPath(dir) + "/" + name); err != nil {
		return err
	}
	if dir != a.parent.fd {
		// The directory kept open may have been below it.
		a.parent.drop()
	}
	return nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
