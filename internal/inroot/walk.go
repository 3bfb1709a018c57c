package inroot

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxLinks is the maximal number of symbolic links in the resolution of a path, as in the kernel.
	maxLinks = 40
	// maxPath is the length of paths and of links' targets, with the kernel's NUL byte.
	maxPath = 4096
	// maxDepth bounds the depth of a path, and so the descriptors of a walk. No path can be that long
	// at once; only links that lead ever deeper get there.
	maxDepth = maxPath / 2
)

// walker is the state of a walk from a root.
type walker struct {
	root int
	at   []int  // the directories on the way down, without the root
	todo string // the rest of the path
	// links counts the symbolic links followed.
	links int
}

// walk opens a path without openat2.
func walk(root int, path string, flags int) (int, error) {
	if len(path) >= maxPath {
		return -1, unix.ENAMETOOLONG
	}
	w := &walker{root: root, todo: path}
	defer w.climb(maxDepth)
	fd, err := w.last(flags)
	if err != nil {
		return -1, err
	}
	if flags&unix.O_PATH != 0 {
		return fd, nil
	}
	defer func() { _ = unix.Close(fd) }()
	return again(func() (int, error) { return unix.Open(procPath(fd), flags&^unix.O_NOFOLLOW, 0) })
}

// last walks to the end and returns the file there, opened as O_PATH only.
func (w *walker) last(flags int) (int, error) {
	for {
		part, more := w.next()
		switch part {
		case "":
			return w.here()
		case ".":
			continue
		case "..":
			w.climb(1)
			continue
		}
		fd, kind, err := w.step(part)
		if err != nil {
			return -1, err
		}
		keep := !more && flags&unix.O_NOFOLLOW != 0
		switch {
		case kind == unix.S_IFLNK && keep:
			if err = keepLink(flags); err == nil {
				return fd, nil
			}
		case kind == unix.S_IFLNK:
			err = w.follow(fd, more)
		case kind == unix.S_IFDIR:
			if len(w.at) < maxDepth {
				w.at = append(w.at, fd)
				continue
			}
			err = unix.ENAMETOOLONG
		case more || flags&unix.O_DIRECTORY != 0:
			err = unix.ENOTDIR
		default:
			return fd, nil
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, err
		}
	}
}

// keepLink reports whether a symbolic link itself can be opened.
func keepLink(flags int) error {
	switch {
	case flags&unix.O_DIRECTORY != 0:
		return unix.ENOTDIR
	case flags&unix.O_PATH == 0:
		return unix.ELOOP
	default:
		return nil
	}
}

// next cuts the next part from the rest; "" at the end. more reports whether anything follows, even
// a slash that requires a directory.
func (w *walker) next() (part string, more bool) {
	rest := strings.TrimLeft(w.todo, "/")
	part, w.todo, more = strings.Cut(rest, "/")
	return part, more
}

// step opens a name in the current directory, without following it.
func (w *walker) step(name string) (fd int, kind uint32, err error) {
	fd, err = again(func() (int, error) {
		return unix.Openat(w.dir(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, st.Mode & unix.S_IFMT, nil
}

// follow puts a symbolic link's target before the rest of the path, if there is any.
func (w *walker) follow(link int, more bool) error {
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(link, "", buf)
	switch {
	case err != nil:
		return err
	case n == 0:
		return unix.ENOENT
	case n == len(buf):
		return unix.ENAMETOOLONG
	}
	target := string(buf[:n])
	if target[0] == '/' {
		w.climb(maxDepth)
	}
	if more {
		target += "/" + w.todo
	}
	w.todo = target
	return nil
}

// dir returns the current directory.
func (w *walker) dir() int {
	if len(w.at) == 0 {
		return w.root
	}
	return w.at[len(w.at)-1]
}

// here opens the current directory again.
func (w *walker) here() (int, error) {
	return again(func() (int, error) {
		return unix.Openat(w.dir(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// climb goes up n directories, at most to the root.
func (w *walker) climb(by int) {
	for ; by > 0 && len(w.at) > 0; by-- {
		_ = unix.Close(w.dir())
		w.at = w.at[:len(w.at)-1]
	}
}

// again repeats a call that a signal interrupted.
func again(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
