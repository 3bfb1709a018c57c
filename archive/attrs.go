package archive

import (
	"archive/tar"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

// xattrRecord is the prefix of PAX records that are extended attributes.
const xattrRecord = "SCHILY.xattr."

// checkOwner refuses ids that the kernel does not support; the highest means "unchanged".
func checkOwner(hdr *tar.Header) error {
	const highest = 1<<32 - 2
	if hdr.Uid < 0 || hdr.Uid > highest || hdr.Gid < 0 || hdr.Gid > highest {
		return invalidf("owner %d:%d is out of range", hdr.Uid, hdr.Gid)
	}
	return nil
}

// attributes sets owner, extended attributes and mode of the file at base. The order
// matters: a change of owner clears set-user-ID and capabilities.
func (a *applier) attributes(hdr *tar.Header, base string, mode bool) error {
	fd := a.parent.fd
	if err := unix.Fchownat(fd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "fchownat", Path: base, Err: err}
	}
	if err := setXattrs(hdr, byPath(fd, base)); err != nil {
		return err
	}
	if !mode {
		return nil
	}
	return chmod(fd, base, uint32(hdr.Mode)&0o7777)
}

// chmod sets the mode of name in a directory. A symbolic link, which may have been put
// there since, is not followed.
func chmod(dir int, name string, mode uint32) error {
	err := unix.Fchmodat(dir, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		if err != nil {
			return &os.PathError{Op: "fchmodat", Path: name, Err: err}
		}
		return nil
	}
	// Before Linux 6.6, or a link, which has no mode.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err == nil {
		err = unix.Chmod(fdPath(fd), mode)
	}
	if err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// fileAttributes is attributes for a file that was just created and is open: root owns it
// already, unless the directory passes on its group.
func (a *applier) fileAttributes(hdr *tar.Header, fd int) error {
	if hdr.Uid != os.Geteuid() || hdr.Gid != os.Getegid() || a.parent.setgid {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return &os.PathError{Op: "fchown", Path: hdr.Name, Err: err}
		}
	}
	set := func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }
	if err := setXattrs(hdr, set); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return &os.PathError{Op: "fchmod", Path: hdr.Name, Err: err}
	}
	return nil
}

// byPath sets attributes of name in a directory; a link is not followed.
func byPath(dir int, name string) func(string, []byte) error {
	return xattr.Path{Name: fdPath(dir) + "/" + name}.Set
}

// setXattrs sets the extended attributes of an entry.
func setXattrs(hdr *tar.Header, set func(name string, value []byte) error) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	for _, record := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || !wanted(name) {
			continue
		}
		err := set(name, []byte(hdr.PAXRecords[record]))
		if err != nil && !optional(name, err) {
			return &os.PathError{Op: "setxattr " + name, Path: hdr.Name, Err: err}
		}
	}
	return nil
}

// clearXattrs removes the attributes of an existing directory that its entry does not have:
// the result is as if the directory were created anew on the lower layers.
func (a *applier) clearXattrs(hdr *tar.Header, dir int, name string) error {
	unwanted := func(attr string) bool {
		_, has := hdr.PAXRecords[xattrRecord+attr]
		return !has && wanted(attr) && attr != "security.selinux"
	}
	return xattr.Remove(xattr.Path{Name: fdPath(dir) + "/" + name}, a.buf, unwanted, optional)
}

// wanted reports whether an attribute may come from an archive or a lower layer. Overlay's
// own could redirect a directory to another's files.
func wanted(name string) bool {
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

// optional reports whether an attribute may be lost: the file system does not support it, or (for
// attributes of users, on links and devices) does not allow it, or the label is another
// system's.
func optional(name string, err error) bool {
	switch {
	case errors.Is(err, unix.ENOTSUP):
		return true
	case errors.Is(err, unix.EPERM):
		return strings.HasPrefix(name, "user.")
	case errors.Is(err, unix.EINVAL):
		return name == "security.selinux"
	default:
		return false
	}
}

// copyXattrs copies the attributes of one open directory or file to another.
func (a *applier) copyXattrs(from, to int) error {
	return xattr.Copy(xattr.Path{Name: fdPath(from), Follow: true}, xattr.Path{Name: fdPath(to), Follow: true}, a.buf, wanted, optional)
}

// times returns the times of access and modification.
func times(hdr *tar.Header) [2]unix.Timespec {
	m := unix.Timespec{Sec: hdr.ModTime.Unix(), Nsec: int64(hdr.ModTime.Nanosecond())}
	at := m
	if !hdr.AccessTime.IsZero() {
		at = unix.Timespec{Sec: hdr.AccessTime.Unix(), Nsec: int64(hdr.AccessTime.Nanosecond())}
	}
	return [2]unix.Timespec{at, m}
}

func utimes(dir int, name string, ts [2]unix.Timespec) error {
	if err := unix.UtimesNanoAt(dir, name, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: name, Err: err}
	}
	return nil
}

// setDirTimes sets the directories' times, in the archive's order, so that of two entries
// for one directory the last counts. A directory that was removed or replaced is skipped.
func (a *applier) setDirTimes(ctx func() error) error {
	for _, d := range a.dirTimes {
		if err := ctx(); err != nil {
			return err
		}
		if d.path == "" {
			if err := utimes(a.root, ".", d.times); err != nil {
				return err
			}
			continue
		}
		dir, base := splitName(d.path)
		if a.parent.fd < 0 || a.parent.path != dir {
			a.parent.drop()
			fd, err := a.open.Open(a.root, dir, unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				continue
			}
			a.parent = parentDir{path: dir, fd: fd}
		}
		var st unix.Stat_t
		if unix.Fstatat(a.parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err := utimes(a.parent.fd, base, d.times); err != nil {
			return err
		}
	}
	return nil
}
