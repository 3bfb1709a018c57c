package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

// node is a file in one of two trees.
type node struct {
	dir  int // open
	name string
	path string // from the tree's root
	st   unix.Stat_t
	// attrs are its extended attributes, but for the overlay's own.
	attrs  map[string]string
	target string // of a symbolic link
}

func (n *node) isDir() bool { return n.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func (n *node) isRegular() bool { return n.st.Mode&unix.S_IFMT == unix.S_IFREG }

// linked tells whether the file may have other names.
func (n *node) linked() bool { return !n.isDir() && n.st.Nlink > 1 }

func (n *node) id() [2]uint64 { return [2]uint64{n.st.Dev, n.st.Ino} }

func (d *differ) lstat(dir int, name, path string) (*node, error) {
	n := &node{dir: dir, name: name, path: path}
	if err := unix.Fstatat(dir, name, &n.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if n.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		if n.target, err = readlink(dir, name); err != nil {
			return nil, err
		}
	}
	var err error
	n.attrs, err = xattr.Read(xattr.Path{Name: fdPath(dir) + "/" + name}, d.bufs[0], wanted)
	return n, err
}

// lstatUpper is lstat in the upper tree, with the owners that the layer is to have.
func (d *differ) lstatUpper(dir int, name, path string) (*node, error) {
	n, err := d.lstat(dir, name, path)
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

// capabilityAttr is the attribute with a file's capabilities.
const capabilityAttr = "security.capability"

// same tells whether a name stands for the same in both trees.
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
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return true, nil // both are at their end, having been equal up to here
		}
	}
}

func (n *node) open() (*os.File, error) {
	fd, err := unix.Openat(n.dir, n.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
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
	if !n.isRegular() {
		return d.tw.WriteHeader(hdr)
	}
	f, err := n.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := d.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return d.content(f, hdr.Size)
}

func (d *differ) content(f *os.File, size int64) error {
	for left := size; left > 0; {
		if err := d.ctx(); err != nil {
			return err
		}
		buf := d.bufs[0][:min(left, int64(len(d.bufs[0])))]
		n, err := io.ReadFull(f, buf)
		if err != nil {
			return &os.PathError{Op: "read", Path: f.Name(), Err: err} // it has become shorter
		}
		if _, err := d.tw.Write(buf); err != nil {
			return err
		}
		left -= int64(n)
		d.written += int64(n)
		if d.opts.Progress != nil {
			d.opts.Progress(d.written)
		}
	}
	return nil
}

// header describes a file; nil for what tar has no entry for.
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
