package stdio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
)

// namedPipe creates the pipe of a process that may outlive the shim.
func namedPipe(env Env, path string) (r, w *os.File, err error) {
	if err := fifo.Remove(path); err != nil { // of an attempt that failed
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := fifo.Create(path, 0o600); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	if r, w, err = fifo.Outlet(path); err == nil {
		if err = chownPipe(env, int(w.Fd())); err != nil { // Fd leaves a blocking file as it is
			err = errors.Join(err, r.Close(), w.Close())
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, fifo.Remove(path))
	}
	return r, w, nil
}

// anonymousPipe creates the pipe of a process that no later shim adopts.
func anonymousPipe(env Env) (r, w *os.File, err error) {
	fd, w, err := newPipe(env)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make pipe: %w", err), unix.Close(fd), w.Close())
	}
	return os.NewFile(uintptr(fd), "pipe"), w, nil
}

// newPipe creates a pipe whose writing end is blocking and belongs to the container's user.
func newPipe(env Env) (r int, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := chownPipe(env, fds[1]); err != nil {
		return -1, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// chownPipe makes the container's user the owner of a pipe.
func chownPipe(env Env, fd int) error {
	if env.UID == 0 && env.GID == 0 {
		return nil
	}
	if err := unix.Fchown(fd, int(env.UID), int(env.GID)); err != nil {
		return fmt.Errorf("change owner of pipe: %w", err)
	}
	return nil
}
