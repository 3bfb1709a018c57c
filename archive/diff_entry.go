package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

// node is a file in one of two trees; it stays valid if its name changes.
type node struct {
	fd   int    // O_PATH; -1 for none
	path string // from the tree's root
	st   unix.Stat_t
	// attrs are its extended attributes, except the overlay's own.
	attrs  map[string]string
	target string // of a symbolic link
}

func (n *node) close() {
	if n.fd >= 0 {
		_ = unix.Close(n.fd)
	}
}

func (n *node) isDir() bool { return n.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func (n *node) isRegular() bool { return n.st.Mode&unix.S_IFMT == unix.S_IFREG }

// linked reports whether the file may have other names.
func (n *node) linked() bool { return !n.isDir() && n.st.Nlink > 1 }

func (n *node) id() [2]uint64 { return [2]uint64{n.st.Dev, n.st.Ino} }

// look opens the file of a name, which the caller closes; ENOENT if there is none.
func (d *differ) look(dir int, name, path string) (*node, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: path, Err: err}
	}
	n := &node{fd: fd, path: path}
	if err := d.describe(n); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (d *differ) describe(n *node) (err error) {
	if err := unix.Fstat(n.fd, &n.st); err != nil {
		return &os.PathError{Op: "fstat", Path: n.path, Err: err}
	}
	if n.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if n.target, err = readlink(n.fd, ""); err != nil {
			return err
		}
	}
	n.attrs, err = xattr.Read(xattr.Path{Name: fdPath(n.fd), Follow: true}, d.bufs[0], wanted)
	return err
}

// lookUpper is look in the upper tree, with the owners of the layer.
func (d *differ) lookUpper(dir int, name, path string) (*node, error) {
	n, err := d.look(dir, name, path)
	if err != nil || d.opts.Owners == nil {
		return n, err
	}
	var capability string
	n.st.Uid, n.st.Gid, capability = d.opts.Owners(n.st.Uid, n.st.Gid, n.attrs[capabilityAttr])
	if capability != "" {
		n.attrs[capabilityAttr] = capability
	}
	return n, nil
}

// isOpaque reports whether an overlay's upper directory hides the lower ones.
func (n *node) isOpaque() (bool, error) {
	var value [8]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		size, err := unix.Getxattr(fdPath(n.fd), attr, value[:])
		switch {
		case err == nil && size == 1 && value[0] == 'y':
			return true, nil
		case err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
			return false, &os.PathError{Op: "getxattr " + attr, Path: n.path, Err: err}
		}
	}
	return false, nil
}

// capabilityAttr is the attribute with a file's capabilities.
const capabilityAttr = "security.capability"

// same reports whether two files are the same in both trees.
func (d *differ) same(low, n *node) (bool, error) {
	a, b := &low.st, &n.st
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || low.target != n.target || !maps.Equal(low.attrs, n.attrs) {
		return false, nil
	}
	if n.isDir() {
		return a.Mtim == b.Mtim, nil
	}
	if n.linked() && d.relinked[n.id()] {
		return false, nil
	}
	if a.Rdev != b.Rdev || a.Size != b.Size || a.Mtim != b.Mtim {
		return false, nil
	}
	if !n.isRegular() || low.id() == n.id() && a.Ctim == b.Ctim {
		return true, nil
	}
	return d.sameContents(low, n)
}

func (d *differ) sameContents(low, n *node) (bool, error) {
	a, err := n.open()
	if err != nil {
		return false, err
	}
	defer func() { _ = a.Close() }()
	b, err := low.open()
	if err != nil {
		return false, err
	}
	defer func() { _ = b.Close() }()
	for {
		if err := d.ctx(); err != nil {
			return false, err
		}
		x, errA := io.ReadFull(a, d.bufs[0])
		y, errB := io.ReadFull(b, d.bufs[1])
		if !bytes.Equal(d.bufs[0][:x], d.bufs[1][:y]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !isEnd(err) {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return true, nil // both ended, and were equal so far
		}
	}
}

// open opens a regular file for reading.
func (n *node) open() (*os.File, error) {
	fd, err := unix.Open(fdPath(n.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: n.path, Err: err}
	}
	return os.NewFile(uintptr(fd), n.path), nil
}

// write writes an entry with its content.
func (d *differ) write(n *node) error {
	hdr := n.header()
	if hdr == nil {
		return nil // a socket
	}
	if latest := d.opts.Latest; !latest.IsZero() && hdr.ModTime.After(latest) {
		hdr.ModTime = latest
	}
	if n.linked() {
		if first, ok := d.seen[n.id()]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.PAXRecords = tar.TypeLink, first, 0, nil
			return d.tw.WriteHeader(hdr)
		}
		d.seen[n.id()] = n.path
	}
	if hdr.Size == 0 {
		return d.tw.WriteHeader(hdr)
	}
	return d.content(hdr, n)
}

// content writes the entry of a file that is not empty. The start is read before the length is
// written, so that a file that is just being rewritten is archived in its new state, not the old one.
func (d *differ) content(hdr *tar.Header, n *node) error {
	f, err := n.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	got, size, err := start(f, d.bufs[0], hdr.Size)
	if err != nil {
		return err
	}
	hdr.Size = size
	if err := d.tw.WriteHeader(hdr); err != nil {
		return err
	}
	for left := hdr.Size; ; {
		if err := d.ctx(); err != nil {
			return err
		}
		if _, err := d.tw.Write(d.bufs[0][:got]); err != nil {
			return err
		}
		left -= int64(got)
		d.written += int64(got)
		if d.opts.Progress != nil {
			d.opts.Progress(d.written)
		}
		if left == 0 {
			return nil
		}
		if got, err = d.more(f, left); err != nil {
			return err
		}
	}
}

// start fills the buffer from a file whose length was was, and returns how much it read, and the
// length to write.
func start(f *os.File, buf []byte, was int64) (got int, size int64, err error) {
	for size = was; got < len(buf) && int64(got) != size; {
		n, err := f.Read(buf[got:])
		if got += n; errors.Is(err, io.EOF) {
			return got, int64(got), nil
		}
		if err != nil {
			return got, 0, err
		}
		if int64(got) == size {
			break
		}
		fi, err := f.Stat()
		if err != nil {
			return got, 0, err
		}
		size = fi.Size()
	}
	return got, max(size, int64(got)), nil
}

// more reads on in a file with left bytes to go, and returns how much of the buffer it filled.
func (d *differ) more(f *os.File, left int64) (int, error) {
	buf := d.bufs[0][:min(left, int64(len(d.bufs[0])))]
	n, err := io.ReadFull(f, buf)
	switch {
	case isEnd(err) && d.opts.Live:
		clear(buf[n:])
	case isEnd(err):
		return 0, fmt.Errorf("read %s: the file became shorter: %w", f.Name(), errdefs.ErrAborted)
	case err != nil:
		return 0, err
	}
	return len(buf), nil
}

// isEnd reports whether err is from reading at a file's end.
func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// header describes a file; nil if tar has no entry for it.
func (n *node) header() *tar.Header {
	hdr := &tar.Header{
		Name: n.path, Mode: int64(n.st.Mode & 0o7777), Uid: int(n.st.Uid), Gid: int(n.st.Gid),
		ModTime: time.Unix(n.st.Mtim.Sec, n.st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, n.path+"/"
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, n.st.Size
	case unix.S_IFLNK:
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, n.target
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if n.st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(n.st.Rdev)), int64(unix.Minor(n.st.Rdev))
	default:
		return nil
	}
	for name, value := range n.attrs {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = make(map[string]string)
		}
		hdr.PAXRecords[xattrRecord+name] = value
	}
	return hdr
}
