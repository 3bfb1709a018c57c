package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const loopClear = 0x4c01

// MaxLoopTag is the maximal length of a loop device's tag.
const MaxLoopTag = 63

// AttachLoop creates a block device of a file, until DetachLoops is called for its tag,
// which losetup shows as the file's name.
func AttachLoop(file, tag string, readOnly bool) (device string, err error) {
	if tag == "" || len(tag) > MaxLoopTag {
		return "", invalidf("attach loop device: tag %q: want 1 to %d bytes", tag, MaxLoopTag)
	}
	flags := uint32(0)
	if readOnly {
		flags = loReadOnly
	}
	dev, err := loopDevice(file, tag, flags)
	if err != nil {
		return "", err
	}
	return dev.Name(), dev.Close()
}

// DetachLoops detaches the block devices with a tag, as soon as they are not used any more. It
// is idempotent.
func DetachLoops(tag string) error {
	// Only a device with a file has this entry.
	entries, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return fmt.Errorf("look for loop devices: %w", err)
	}
	for _, e := range entries {
		if err := detachTagged("/dev/"+filepath.Base(filepath.Dir(filepath.Dir(e))), tag); err != nil {
			return err
		}
	}
	return nil
}

// detachTagged detaches a device if it has the tag.
func detachTagged(device, tag string) (err error) {
	dev, err := os.OpenFile(device, os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at loop device: %w", err)
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if errors.Is(err, unix.ENXIO) { // it was detached concurrently
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at loop device %s: %w", device, err)
	}
	if name, _, _ := bytes.Cut(info.File_name[:], []byte{0}); string(name) != tag {
		return nil
	}
	if err := unix.IoctlSetInt(int(dev.Fd()), loopClear, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach loop device %s: %w", device, err)
	}
	return nil
}
