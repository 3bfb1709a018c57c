package dirs

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// takesNoWrites reports whether err is of a disk that is full, read-only or broken, where nothing can
// be probed. Existing snapshots can still be mounted, and removed.
func takesNoWrites(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Untried returns the error of a driver's probe, but nil if the disk takes no writes and has snapshots
// of the driver: it created them, and has to remove them.
func (d *Dirs) Untried(err error) error {
	if !takesNoWrites(err) {
		return err
	}
	entries, rerr := os.ReadDir(d.root)
	if rerr != nil {
		return err
	}
	for _, e := range entries {
		if _, perr := strconv.ParseUint(e.Name(), 10, 64); perr == nil {
			return nil
		}
	}
	return err
}
