package archive

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	// metaPrefix starts names that aufs reserved; only the opaque mark has a
	// meaning.
	metaPrefix = ".wh..wh."
	opaqueName = ".wh..opq"
)

// reserved reports whether a path is aufs's own, to be skipped, and refuses whiteouts
// with entries below them.
func reserved(name string) (skip bool, err error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return false, nil
	}
	parts := strings.Split(name, "/")
	for i, part := range parts {
		last := i == len(parts)-1
		switch {
		case last && part == whiteoutPrefix+opaqueName:
			return false, nil
		case strings.HasPrefix(part, metaPrefix):
			return true, nil
		case !last && strings.HasPrefix(part, whiteoutPrefix):
			return false, invalidf("path is below the whiteout %.255q", part)
		}
	}
	return false, nil
}

// whiteout hides a name in the parent, or with the opaque mark everything in the parent.
func (a *applier) whiteout(dir, hidden string) error {
	switch hidden {
	case opaqueName:
		return a.opaque(dir)
	case "", ".", "..":
		return invalidf("whiteout of %q", hidden)
	}
	full := path.Join(dir, hidden)
	if a.opts.Whiteouts == WhiteoutRemove {
		if _, ours := a.unpacked[full]; ours {
			return nil
		}
		return a.remove(a.parent.fd, hidden)
	}
	err := unix.Mknodat(a.parent.fd, hidden, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return a.hideBehind(hidden)
	}
	if err != nil {
		return &os.PathError{Op: "make whiteout", Path: full, Err: err}
	}
	return nil
}

// hideBehind applies a whiteout of a name that this archive has itself: a directory
// must not show lower files, anything else hides them already.
func (a *applier) hideBehind(name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(a.parent.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return a.setOpaque(a.parent.fd, name)
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// opaque hides everything that the lower layers have in the parent.
func (a *applier) opaque(dir string) error {
	if a.opts.Whiteouts == WhiteoutOverlay {
		return a.setOpaque(a.parent.fd, ".")
	}
	fd, err := a.open.Open(a.parent.fd, "", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return a.clear(fd, dir)
}

// clear removes from a directory, which it closes, what this archive did not create.
func (a *applier) clear(fd int, dir string) error {
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }()
	for {
		// Removing while reading is allowed: the remaining names are still read.
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			full := path.Join(dir, name)
			if _, ours := a.unpacked[full]; !ours {
				if err := a.remove(fd, name); err != nil {
					return err
				}
				continue
			}
			sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue
			}
			if err != nil {
				return &os.PathError{Op: "openat", Path: full, Err: err}
			}
			if err := a.clear(sub, full); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// setOpaque marks a directory for the overlay file system.
func (a *applier) setOpaque(dir int, name string) error {
	attr := "trusted.overlay.opaque"
	if a.opts.UserXattr {
		attr = "user.overlay.opaque"
	}
	if err := unix.Lsetxattr(fdPath(dir)+"/"+name, attr, []byte("y"), 0); err != nil {
		return &os.PathError{Op: "mark opaque", Path: name, Err: err}
	}
	return nil
}
