package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of loop devices, see loop(4) and linux/loop.h.
const (
	loopControl    = "/dev/loop-control"
	loopCtlGetFree = 0x4c82
	loopConfigure  = 0x4c0a

	loReadOnly  = 1
	loAutoclear = 4

	// loopTries bounds the race for a free device with other processes.
	loopTries = 64
)

// loopConfig is struct loop_config with the struct loop_info64 in it.
type loopConfig struct {
	fd, blockSize uint32
	info          loopInfo
	reserved      [8]uint64
}

type loopInfo struct {
	device, inode, rdevice, offset, sizeLimit uint64
	number, encryptType, encryptKeySize       uint32
	flags                                     uint32
	fileName, cryptName                       [64]byte
	encryptKey                                [32]byte
	init                                      [2]uint64
}

// attachLoop creates a block device of a file and returns it open. The kernel detaches the device
// once it is neither open nor mounted: close it when it is mounted.
func attachLoop(file string, readOnly bool) (*os.File, error) {
	flags := uint32(loAutoclear)
	if readOnly {
		flags |= loReadOnly
	}
	return loopDevice(file, filepath.Base(file), flags)
}

// loopDevice creates a block device of a file with the kernel's flags and a name, and returns it open.
func loopDevice(file, name string, flags uint32) (*os.File, error) {
	mode := os.O_RDWR
	if flags&loReadOnly != 0 {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer func() { _ = backing.Close() }()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer func() { _ = control.Close() }()
	config := loopConfig{fd: uint32(backing.Fd()), info: loopInfo{flags: flags}}
	copy(config.info.fileName[:63], name)
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), loopCtlGetFree)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), mode, 0)
		if err != nil {
			return nil, fmt.Errorf("attach loop device: %w", err)
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), loopConfigure, uintptr(unsafe.Pointer(&config)))
		if errno == 0 {
			return dev, nil
		}
		if err := dev.Close(); err != nil {
			return nil, fmt.Errorf("close loop device: %w", err)
		}
		if !errors.Is(errno, unix.EBUSY) {
			return nil, fmt.Errorf("attach loop device for %s: %w", file, errno)
		}
	}
	return nil, fmt.Errorf("attach loop device for %s: other processes used each free one first: %w", file, unix.EBUSY)
}

// withDevice calls f with the device or file to mount: the source itself, or
// a loop device for it if it is a file and has to be a block device.
func withDevice(m Mount, o *options, f func(source string) error) error {
	if !o.loop {
		err := f(m.Source)
		if m.Type != "erofs" || !errors.Is(err, unix.ENOTBLK) {
			return err // since Linux 6.12 erofs is mounted from files
		}
	}
	dev, err := attachLoop(m.Source, o.flags&unix.MS_RDONLY != 0)
	if err != nil {
		return err
	}
	return errors.Join(f(dev.Name()), dev.Close())
}
