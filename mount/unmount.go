package mount

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busyTries = 20
	busyPause = 5 * time.Millisecond
)

// UnmountAll removes every mount stacked at target. It is idempotent: a target that is
// missing or is not a mount point is not an error. flags are those of umount2(2). A mount that
// stays busy for about 0.1 s is detached lazily, so that it vanishes with its last user.
// Mounts below the target are not unmounted; see Under.
func UnmountAll(target string, flags int) error {
	for {
		err := unmountBusy(target, flags)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// unmountBusy removes one mount, waiting a bounded time for it to become idle.
func unmountBusy(target string, flags int) error {
	err := unmountOnce(target, flags)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	tick := time.NewTicker(busyPause)
	defer tick.Stop()
	for range busyTries {
		<-tick.C
		if err = unmountOnce(target, flags); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return unmountOnce(target, flags|unix.MNT_DETACH)
}

func unmountOnce(target string, flags int) error {
	for {
		if err := unix.Unmount(target, flags); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
