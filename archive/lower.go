package archive

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/inroot"
)

// maxLinks is the maximal number of symbolic links in the resolution of a path, as in the kernel.
const maxLinks = 40

// lowerDir is the merged lower layers, opened on first use.
type lowerDir struct {
	open func() (*os.File, error)
	in   *inroot.Opener
	fd   int
	// unknown marks that they do not exist yet.
	unknown bool
}

// lstat looks up a path without symbolic links in the lower layers. ok is false if it does not
// exist, or there are no layers.
func (l *lowerDir) lstat(name string) (fd int, st unix.Stat_t, ok bool, err error) {
	if l.unknown {
		return -1, st, false, ErrBelow
	}
	if l.open != nil {
		f, err := l.open()
		l.open = nil
		if err != nil {
			return -1, st, false, fmt.Errorf("open the lower layers: %w", err)
		}
		l.fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err := errors.Join(err, f.Close()); err != nil {
			return -1, st, false, fmt.Errorf("open the lower layers: %w", err)
		}
	}
	if l.fd < 0 {
		return -1, st, false, nil
	}
	fd, err = l.in.Open(l.fd, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return -1, st, false, nil
	}
	if err != nil {
		return -1, st, false, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, false, &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	return fd, st, true, nil
}

func (l *lowerDir) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
	}
}

// makeParents walks to dir one part at a time, through symbolic links in the root and in the
// lower layers, creates missing directories (as in the lower layers, or new),
// and returns the last.
func (a *applier) makeParents(dir string) (int, error) {
	todo := strings.Split(dir, "/")
	var at []string // current position: real directories only
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 0)]
			continue
		}
		link, err := a.step(strings.Join(at, "/"), part)
		if err != nil {
			return -1, err
		}
		if link == "" {
			at = append(at, part)
			continue
		}
		if links++; links > maxLinks || len(link) > maxPath {
			return -1, &os.PathError{Op: "resolve", Path: dir, Err: unix.ELOOP}
		}
		if path.IsAbs(link) {
			at = at[:0]
		}
		todo = append(strings.Split(link, "/"), todo...)
	}
	return a.open.Open(a.root, strings.Join(at, "/"), unix.O_PATH|unix.O_DIRECTORY)
}

// step ensures that part is a directory in the directory at, or returns the target if it
// is a symbolic link, in the root or in a lower layer.
func (a *applier) step(at, part string) (link string, err error) {
	dir, err := a.open.Open(a.root, at, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(dir) }()
	full := path.Join(at, part)
	var st unix.Stat_t
	err = unix.Fstatat(dir, part, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && isWhiteout(&st) && a.opts.Whiteouts == WhiteoutOverlay:
		if err := a.remove(dir, part); err != nil {
			return "", err
		}
		if err := a.newDir(dir, part, full, nil, 0o755, 0, 0); err != nil {
			return "", err
		}
		return "", a.setOpaque(dir, part)
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return "", nil
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return readlink(dir, part)
	case err == nil:
		return "", &os.PathError{Op: "mkdir", Path: full, Err: unix.ENOTDIR}
	case !errors.Is(err, unix.ENOENT):
		return "", &os.PathError{Op: "lstat", Path: full, Err: err}
	}
	fd, lst, ok, err := a.lower.lstat(full)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", a.newDir(dir, part, full, nil, 0o755, 0, 0)
	}
	defer func() { _ = unix.Close(fd) }()
	switch lst.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := a.newDir(dir, part, full, &lst, lst.Mode&0o7777, int(lst.Uid), int(lst.Gid)); err != nil {
			return "", err
		}
		made, err := unix.Openat(dir, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "openat", Path: full, Err: err}
		}
		defer func() { _ = unix.Close(made) }()
		return "", a.copyXattrs(fd, made)
	case unix.S_IFLNK:
		return readlink(fd, "")
	default:
		return "", a.newDir(dir, part, full, nil, 0o755, 0, 0)
	}
}

// newDir creates a directory that has no entry of its own, with the times of st, if given.
func (a *applier) newDir(dir int, name, full string, st *unix.Stat_t, mode uint32, uid, gid int) error {
	// One entry may cause two thousand directories.
	if err := a.countName(full); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return &os.PathError{Op: "mkdirat", Path: full, Err: err}
	}
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "fchownat", Path: full, Err: err}
	}
	if err := chmod(dir, name, mode); err != nil {
		return err
	}
	if st != nil {
		a.dirTimes = append(a.dirTimes, dirTime{full, [2]unix.Timespec{st.Atim, st.Mtim}})
	}
	a.note(full)
	return nil
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlinkat", Path: name, Err: err}
	}
	if n == 0 {
		return "", &os.PathError{Op: "readlinkat", Path: name, Err: unix.ENOENT}
	}
	return string(buf[:n]), nil
}

// copyUp copies a regular file from the lower layers, so that it can be linked to.
func (a *applier) copyUp(name string) error {
	fd, st, ok, err := a.lower.lstat(name)
	if err != nil {
		return err
	}
	if !ok {
		return invalidf("hard link to %.512q, which does not exist", name)
	}
	defer func() { _ = unix.Close(fd) }()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return invalidf("hard link to %.512q, which is not a regular file of a lower layer", name)
	}
	src, err := os.Open(fdPath(fd))
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dir, base := splitName(name)
	if err := a.openParent(dir); err != nil {
		return err
	}
	out, err := a.createFile(base)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), name)
	if _, err := dst.ReadFrom(src); err != nil {
		return errors.Join(err, dst.Close())
	}
	err = errors.Join(
		unix.Fchown(int(dst.Fd()), int(st.Uid), int(st.Gid)),
		a.copyXattrs(fd, int(dst.Fd())),
		unix.Fchmod(int(dst.Fd()), st.Mode&0o7777),
		dst.Close(),
	)
	if err != nil {
		return fmt.Errorf("copy up %q: %w", name, err)
	}
	return utimes(a.parent.fd, base, [2]unix.Timespec{st.Atim, st.Mtim})
}
