// Package filelock waits for locks of flock(2), which is told nothing when one becomes free.
package filelock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often a held lock is tried for again.
const interval = 10 * time.Millisecond

// Wait takes the lock of f that how names, unix.LOCK_SH or unix.LOCK_EX. It goes with the descriptor. A lock
// that others hold until ctx ends is unix.EWOULDBLOCK; it is tried for once at least.
func Wait(ctx context.Context, f *os.File, how int) error {
	again := time.NewTicker(interval)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}
