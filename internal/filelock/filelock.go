// Package filelock waits for locks of flock(2) by polling, with a context.
package filelock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// interval is the time between attempts to take a held lock.
const interval = 10 * time.Millisecond

// Wait takes the lock of f of the kind how, unix.LOCK_SH or unix.LOCK_EX. It is released with the descriptor. A lock
// that others hold until ctx ends is unix.EWOULDBLOCK; it is tried at least once.
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
