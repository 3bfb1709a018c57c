package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/identifier"
)

// create creates and locks a directory for a Set. It holds a shared lock on root in between: Collect
// must not see a directory between its creation and its locking.
func create(root string) (*Set, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	guard, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = guard.Close() }() // releases the lock; nothing was written
	if err := checkOwn(guard, root); err != nil {
		return nil, err
	}
	if err := flock(guard, unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	dir := filepath.Join(root, identifier.Random(12))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &Set{dir: dir, lock: lock}, nil
}

// checkOwn refuses a directory that another user can change: its parent may be shared by all users.
func checkOwn(dir *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("use %s for FIFOs: mode %04o of user %d is not private to this user: %w",
			path, st.Mode&0o7777, st.Uid, errdefs.ErrPermissionDenied)
	}
	return nil
}

// Collect removes the directories below root whose program has ended and whose FIFOs no container
// has open. It never waits: if another program is using root, it does nothing. A missing root
// is not an error.
func Collect(root string) error {
	guard, err := os.Open(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("collect stdio below %s: %w", root, err)
	}
	defer func() { _ = guard.Close() }() // releases the lock; nothing was written
	names, err := guard.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("collect stdio below %s: %w", root, err)
	}
	if len(names) == 0 {
		return nil
	}
	if err := flock(guard, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // a Set is being created; a later client collects
	}
	var errs error
	for _, name := range names {
		errs = errors.Join(errs, collectDir(filepath.Join(root, name)))
	}
	return errs
}

// collectDir removes one directory if it is not in use.
func collectDir(dir string) error {
	lock, err := lockDir(dir)
	if err != nil {
		return nil // in use, already gone, or not a directory
	}
	defer func() { _ = lock.Close() }() // releases the lock; nothing was written
	for _, name := range []string{stdinName, stdoutName, stderrName} {
		// A shim keeps a reading end of every FIFO of a running process.
		f, err := openFIFO(filepath.Join(dir, name), unix.O_WRONLY)
		if err == nil {
			return f.Close()
		}
	}
	return os.RemoveAll(dir)
}

// lockDir locks a directory for its user; unix.EWOULDBLOCK if it has one.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
