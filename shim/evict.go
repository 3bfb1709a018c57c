package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// evict ends the live shim of a bundle that clients cannot reach any more: its socket file was removed. The
// container keeps running if it outlives its shim. Without such a shim evict does nothing.
func evict(ctx context.Context, bundle, id string) error {
	f, err := os.Open(filepath.Join(bundle, shimPidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find shim: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return nil // not locked
	}
	pid, err := readPid(f.Name())
	if err != nil {
		return fmt.Errorf("find shim: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open shim %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a pidfd
	if !isShimOf(pid, bundle, id) {
		return fmt.Errorf("evict shim %d: not the shim of %s", pid, bundle)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("evict shim %d: %w", pid, err)
	}
	return awaitEnd(ctx, fd)
}

// isShimOf reports whether a process, which its pidfd protects from being replaced unseen, was started as the shim
// of a bundle: a shim that joined the bundle holds other containers too.
func isShimOf(pid int, bundle, id string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if err != nil {
		return false
	}
	own, err := os.Stat(bundle)
	if err != nil || !os.SameFile(cwd, own) {
		return false
	}
	line, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return false
	}
	args := strings.Split(string(line), "\x00")
	i := slices.Index(args, "-id")
	return i >= 0 && i+1 < len(args) && args[i+1] == id && slices.Contains(args, "serve")
}

// awaitEnd waits for the end of a process that was killed.
func awaitEnd(ctx context.Context, fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(lockRetry/time.Millisecond))
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the end of a shim: %w", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the end of a shim: %w", ctx.Err())
		}
	}
}
