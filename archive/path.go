package archive

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cleanName turns an entry's name into a path below the root without "." and slashes at
// the ends. The root itself is "". Names that climb are refused rather than bent.
func cleanName(name string) (string, error) {
	if len(name) > maxPath {
		return "", invalidf("its path has %d bytes: at most %d are possible", len(name), maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", invalidf("its path holds a NUL byte")
	}
	for rest, more := name, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if part == ".." {
			return "", invalidf("its path leads upwards by \"..\"")
		}
		if len(part) > maxName {
			return "", invalidf("its path has a part of %d bytes: at most %d are possible", len(part), maxName)
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

// parentDir is the directory of the entry before, kept open since the next is mostly in
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

// openParent makes a.parent the directory at dir, making what is missing of it. What it
// opens stays inside the root whatever the archive does to the names on the way, and the
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

// remove removes whatever is at name in the directory dir, with all below it.
func (a *applier) remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "unlinkat", Path: name, Err: err}
	}
	// os.RemoveAll goes by descriptors from here on and follows no link. name is one
	// part, and never "." or "..".
	if err := os.RemoveAll(fdPath(dir) + "/" + name); err != nil {
		return err
	}
	if dir != a.parent.fd {
		// The directory kept open may have been below.
		a.parent.drop()
	}
	return nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
