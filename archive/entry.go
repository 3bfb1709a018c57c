package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// entry applies one entry; data is its content.
func (a *applier) entry(hdr *tar.Header, data io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if err := checkOwner(hdr); err != nil {
		return err
	}
	if name == "" {
		return a.rootEntry(hdr)
	}
	skip, err := reserved(name)
	if skip || err != nil {
		return err
	}
	dir, base := splitName(name)
	hidden, isWhiteout := strings.CutPrefix(base, whiteoutPrefix)
	err = a.openParent(dir)
	if isWhiteout && errors.Is(err, unix.ENOTDIR) {
		// The file that replaced the directory hides all its entries. umoci writes such layers.
		return nil
	}
	if err != nil {
		return err
	}
	if isWhiteout {
		return a.whiteout(dir, hidden)
	}
	a.note(name)
	switch hdr.Typeflag {
	case tar.TypeDir:
		return a.directory(hdr, name, base)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return a.regular(hdr, base, data)
	case tar.TypeLink:
		return a.hardLink(hdr, name)
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > maxPath {
			return invalidf("link target has %d bytes", len(hdr.Linkname))
		}
		return a.node(hdr, base, func() error { return unix.Symlinkat(hdr.Linkname, a.parent.fd, base) })
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return a.device(hdr, base)
	default:
		return invalidf("type %q is unknown", hdr.Typeflag)
	}
}

// note remembers that this archive created a path.
func (a *applier) note(name string) {
	if a.unpacked != nil {
		a.unpacked[name] = struct{}{}
	}
}

// rootEntry sets the root's own attributes.
func (a *applier) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return invalidf("root is not a directory")
	}
	a.result.Root = true
	if err := unix.Fchown(a.root, hdr.Uid, hdr.Gid); err != nil {
		return &os.PathError{Op: "fchown", Path: "/", Err: err}
	}
	if err := a.clearXattrs(hdr, a.root, "."); err != nil {
		return err
	}
	if err := setXattrs(hdr, byPath(a.root, ".")); err != nil {
		return err
	}
	if err := unix.Fchmod(a.root, uint32(hdr.Mode)&0o7777); err != nil {
		return &os.PathError{Op: "fchmod", Path: "/", Err: err}
	}
	a.parent.drop()
	a.dirTimes = append(a.dirTimes, dirTime{"", times(hdr)})
	return nil
}

// directory creates a directory, or sets the entry's attributes on an existing one.
func (a *applier) directory(hdr *tar.Header, name, base string) error {
	fd := a.parent.fd
	opaque := false
	err := unix.Mkdirat(fd, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "lstat", Path: name, Err: err}
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			// It replaces a whiteout of this archive: no lower files may become visible.
			opaque = isWhiteout(&st) && a.opts.Whiteouts == WhiteoutOverlay
			if err := a.remove(fd, base); err != nil {
				return err
			}
			err = unix.Mkdirat(fd, base, 0o700)
		} else if err := a.clearXattrs(hdr, fd, base); err != nil {
			return err
		}
	}
	if err != nil {
		return &os.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	if opaque {
		if err := a.setOpaque(fd, base); err != nil {
			return err
		}
	}
	a.dirTimes = append(a.dirTimes, dirTime{name, times(hdr)})
	return a.attributes(hdr, base, true)
}

func (a *applier) regular(hdr *tar.Header, base string, data io.Reader) error {
	if hdr.Size < 0 || hdr.Size > a.opts.MaxBytes-a.result.Bytes {
		return overf("%d bytes: total length of files exceeds %d", hdr.Size, a.opts.MaxBytes)
	}
	a.result.Bytes += hdr.Size
	fd, err := a.createFile(base)
	if err != nil {
		return err
	}
	// Plain Read and Write with our buffer: neither side has a faster way.
	_, err = io.CopyBuffer(fdWriter(fd), struct{ io.Reader }{data}, a.buf)
	if err == nil {
		err = a.fileAttributes(hdr, fd)
	}
	if err == nil && hdr.Size >= writeBack {
		// So that syncing the whole layer finds little left. Failing to start early loses
		// nothing.
		_ = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = &os.PathError{Op: "close", Path: base, Err: cerr}
	}
	if err != nil {
		return err
	}
	return utimes(a.parent.fd, base, times(hdr))
}

// fdWriter writes to a descriptor without the bookkeeping of an os.File, which costs as much
// per file of a layer as its own calls.
type fdWriter int

func (w fdWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(int(w), p[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, &os.PathError{Op: "write", Path: "file", Err: err}
		}
		n += m
	}
	return n, nil
}

// createFile creates a new file in the parent, replacing any existing one.
func (a *applier) createFile(base string) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	err = a.replacing(base, func() (err error) {
		fd, err = unix.Openat(a.parent.fd, base, flags, 0o600)
		return err
	})
	return fd, err
}

// replacing calls create, and if the name exists, again after removing it.
func (a *applier) replacing(base string, create func() error) error {
	err := create()
	if errors.Is(err, unix.EEXIST) {
		if err := a.remove(a.parent.fd, base); err != nil {
			return err
		}
		err = create()
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: base, Err: err}
	}
	return nil
}

// node creates a file without content by create.
func (a *applier) node(hdr *tar.Header, base string, create func() error) error {
	if err := a.replacing(base, create); err != nil {
		return err
	}
	if err := a.attributes(hdr, base, hdr.Typeflag != tar.TypeSymlink); err != nil {
		return err
	}
	return utimes(a.parent.fd, base, times(hdr))
}

func (a *applier) device(hdr *tar.Header, base string) error {
	if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<32 || hdr.Devminor < 0 || hdr.Devminor >= 1<<32 {
		return invalidf("device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
	}
	mode, dev := uint32(unix.S_IFIFO), 0
	switch hdr.Typeflag {
	case tar.TypeChar:
		mode, dev = unix.S_IFCHR, int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	case tar.TypeBlock:
		mode, dev = unix.S_IFBLK, int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
	}
	return a.node(hdr, base, func() error { return unix.Mknodat(a.parent.fd, base, mode|0o600, dev) })
}

// hardLink adds a name for a file of this archive, or of a lower layer. The link's
// target is a path below the root; a symbolic link at its end is linked to, not followed.
func (a *applier) hardLink(hdr *tar.Header, name string) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %.512q: %w", hdr.Linkname, err)
	}
	if target == "" {
		return invalidf("hard link to the root")
	}
	if target == name {
		return nil
	}
	_, base := splitName(name)
	targetDir, targetBase := splitName(target)
	from, err := a.open.Open(a.root, targetDir, unix.O_PATH|unix.O_DIRECTORY)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstatat(from, targetBase, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && from >= 0 {
		_ = unix.Close(from)
	}
	if errors.Is(err, unix.ENOENT) {
		from, err = a.linkFromBelow(target, name)
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return invalidf("hard link to the directory %.512q", target)
	}
	var here unix.Stat_t
	if unix.Fstatat(a.parent.fd, base, &here, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino != 0 && here.Ino == st.Ino && here.Dev == st.Dev {
		return nil // already the same file, by two paths
	}
	return a.replacing(base, func() error { return unix.Linkat(from, targetBase, a.parent.fd, base, 0) })
}

// linkFromBelow copies a link's target up and returns its directory, with the
// parent opened again.
func (a *applier) linkFromBelow(target, name string) (int, error) {
	if err := a.copyUp(target); err != nil {
		return -1, err
	}
	from, err := unix.FcntlInt(uintptr(a.parent.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, err
	}
	dir, _ := splitName(name)
	if err := a.openParent(dir); err != nil {
		_ = unix.Close(from)
		return -1, err
	}
	return from, nil
}
