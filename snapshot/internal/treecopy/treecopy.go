// Package treecopy copies a directory with everything that a file system stores of it: contents with
// their holes, owners, modes, times to the nanosecond, hard links, symbolic links, devices, FIFOs,
// sockets, extended attributes.
//
// Contents are shared if the file system supports it (FICLONE), and otherwise copied within the kernel
// (copy_file_range). Symbolic links are copied and never followed. The source must not change
// during the copy, and no other user may have access to the destination. Mounts below the source are not
// entered.
package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

// copier is one call of Copy.
type copier struct {
	ctx   func() error
	dev   uint64            // of the source
	links map[uint64]string // path of the copy, by the inode of a file with several names
	// noClone and noRange are set once the file systems have failed to support them.
	noClone, noRange bool
	buf              []byte
}

// Copy creates the directory to, whose parent exists, as a copy of the directory from. After an error
// the caller discards to.
func Copy(ctx context.Context, from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("copy tree: %w", &os.PathError{Op: "lstat", Path: from, Err: err})
	}
	c := &copier{ctx: ctx.Err, dev: st.Dev, links: make(map[uint64]string), buf: make([]byte, xattr.BufferSize)}
	if err := c.copy(from, to, &st); err != nil {
		return fmt.Errorf("copy tree: %w", err)
	}
	return nil
}

func (c *copier) copy(from, to string, st *unix.Stat_t) error {
	if err := c.ctx(); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return wrap("link", to, os.Link(first, to))
		}
		c.links[st.Ino] = to
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.directory(from, to, st)
	case unix.S_IFREG:
		err = c.regular(from, to, st)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		err = wrap("mknod", to, unix.Mknod(to, kind|0o600, int(st.Rdev)))
	}
	if err != nil {
		return err
	}
	return c.attributes(from, to, st)
}

func (c *copier) directory(from, to string, st *unix.Stat_t) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	if st.Dev != c.dev {
		return nil
	}
	dir, err := os.Open(from)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Lstat(from+"/"+name, &st); err != nil {
			return wrap("lstat", from+"/"+name, err)
		}
		if err := c.copy(from+"/"+name, to+"/"+name, &st); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) regular(from, to string, st *unix.Stat_t) error {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(c.contents(src, dst, st.Size), dst.Close())
}

// contents shares the data of a file, or copies its parts that are not holes.
func (c *copier) contents(src, dst *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		if err == nil {
			return nil
		}
		if !unsupported(err) {
			return wrap("clone", dst.Name(), err)
		}
		c.noClone = true
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		if err != nil {
			return wrap("seek", src.Name(), err)
		}
		end, err := unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return wrap("seek", src.Name(), err)
		}
		if err := c.piece(src, dst, begin, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// atOnce bounds the bytes copied between two checks of the context.
const atOnce = 64 << 20

func (c *copier) piece(src, dst *os.File, begin, end int64) error {
	for begin < end {
		if err := c.ctx(); err != nil {
			return err
		}
		n := min(end-begin, atOnce)
		if c.noRange {
			if _, err := src.Seek(begin, io.SeekStart); err != nil {
				return err
			}
			w := io.NewOffsetWriter(dst, begin)
			if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(src, n)}, c.buf); err != nil {
				return err
			}
			begin += n
			continue
		}
		in, out := begin, begin
		m, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(n), 0)
		switch {
		case err != nil && !unsupported(err):
			return wrap("copy", dst.Name(), err)
		case err != nil || m == 0:
			c.noRange = true
		default:
			begin += int64(m)
		}
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EXDEV) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// attributes sets the attributes of an inode. The order matters: a change of owner clears set-user-ID
// and capabilities, and everything changes the times.
func (c *copier) attributes(from, to string, st *unix.Stat_t) error {
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return wrap("lchown", to, err)
	}
	if err := c.xattrs(from, to); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return wrap("chmod", to, err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return wrap("utimensat", to, unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW))
}

func (c *copier) xattrs(from, to string) error {
	all := func(string) bool { return true }
	none := func(_ string, err error) bool { return errors.Is(err, unix.ENOTSUP) } // not supported by the file system
	return xattr.Copy(xattr.Path{Name: from}, xattr.Path{Name: to}, c.buf, all, none)
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
