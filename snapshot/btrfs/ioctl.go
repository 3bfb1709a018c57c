package btrfs

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The ioctls of linux/btrfs.h, _IOC(direction, 0x94, number, size).
const (
	iocSubvolCreate   = 1<<30 | 4096<<16 | 0x94<<8 | 14
	iocSnapDestroy    = 1<<30 | 4096<<16 | 0x94<<8 | 15
	iocSnapCreateV2   = 1<<30 | 4096<<16 | 0x94<<8 | 23
	iocSubvolGetFlags = 2<<30 | 8<<16 | 0x94<<8 | 25
	iocSubvolSetFlags = 1<<30 | 8<<16 | 0x94<<8 | 26

	subvolReadOnly = 1 << 1
	maxName        = 255
	// firstInode is the number of a subvolume's root.
	firstInode = 256
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// createSubvolume creates an empty subvolume at path, mode 0755.
func createSubvolume(path string) error {
	return inParent(path, func(dir *os.File, name string) error {
		var args volArgs
		copy(args.name[:], name)
		return ioctl(dir, iocSubvolCreate, unsafe.Pointer(&args), "create subvolume", path)
	})
}

// snapshotSubvolume creates path as a writable snapshot of the subvolume at source.
func snapshotSubvolume(source, path string) error {
	src, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	return inParent(path, func(dir *os.File, name string) error {
		args := volArgsV2{fd: int64(src.Fd())}
		copy(args.name[:], name)
		return ioctl(dir, iocSnapCreateV2, unsafe.Pointer(&args), "snapshot subvolume", source)
	})
}

// destroySubvolume deletes the subvolume at path; the kernel frees its blocks in the background.
func destroySubvolume(path string) error {
	return inParent(path, func(dir *os.File, name string) error {
		var args volArgs
		copy(args.name[:], name)
		return ioctl(dir, iocSnapDestroy, unsafe.Pointer(&args), "delete subvolume", path)
	})
}

// setReadOnly makes a subvolume read-only, or writable again.
func setReadOnly(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var flags uint64
	if err := ioctl(f, iocSubvolGetFlags, unsafe.Pointer(&flags), "read flags of subvolume", path); err != nil {
		return err
	}
	want := flags &^ subvolReadOnly
	if on {
		want |= subvolReadOnly
	}
	if want == flags {
		return nil
	}
	return ioctl(f, iocSubvolSetFlags, unsafe.Pointer(&want), "set flags of subvolume", path)
}

// isSubvolume reports whether path is the root of a subvolume.
func isSubvolume(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == firstInode
}

func inParent(path string, f func(dir *os.File, name string) error) error {
	name := filepath.Base(path)
	if len(name) > maxName {
		return fmt.Errorf("subvolume name of %d bytes: %w", len(name), errdefs.ErrInvalidArgument)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return f(dir, name)
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer, op, path string) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return &os.PathError{Op: op, Path: path, Err: errno}
	}
	return nil
}
