package dirs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of the FIEMAP ioctl, see Documentation/filesystems/fiemap.rst of the kernel.
const (
	fsIocFiemap        = 0xc020660b
	fiemapFlagSync     = 0x1
	fiemapExtentLast   = 0x1
	fiemapExtentShared = 0x2000
	extentsAtOnce      = 128
)

type fiemap struct {
	start, length                        uint64
	flags, mapped, extentCount, reserved uint32
	extents                              [extentsAtOnce]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	reserved64                [2]uint64
	flags                     uint32
	reserved                  [3]uint32
}

// OwnBytes is a size for Measure that leaves out the extents a file shares with others, as reflinks
// and file system snapshots do. If the file system does not report them, the
// blocks count.
func OwnBytes(path string, fi fs.FileInfo) (int64, bool, error) {
	blocks := fi.Sys().(*syscall.Stat_t).Blocks * 512
	if !fi.Mode().IsRegular() || blocks == 0 {
		return blocks, true, nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = f.Close() }()
	own, err := ownExtents(f)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return blocks, true, nil
	}
	return own, true, err
}

func ownExtents(f *os.File) (own int64, err error) {
	m := new(fiemap)
	for {
		m.length, m.flags, m.extentCount = ^uint64(0)-m.start, fiemapFlagSync, extentsAtOnce
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(m))); errno != 0 {
			return 0, &os.PathError{Op: "fiemap", Path: f.Name(), Err: errno}
		}
		if m.mapped == 0 {
			return own, nil
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&fiemapExtentShared == 0 {
				own += int64(e.length)
			}
			m.start = e.logical + e.length
			if e.flags&fiemapExtentLast != 0 {
				return own, nil
			}
		}
	}
}
