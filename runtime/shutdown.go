package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// The end of a shim: called by remove.go once it holds no container, or to bypass it.

// shutdownLimit is how long a shim may take to exit once it holds no container.
const shutdownLimit = 10 * time.Second

// shutdown asks a shim that holds no container to exit, and kills it in the background if it does not.
func (t *Task) shutdown(ctx context.Context, c *conn) error {
	if c.joined {
		return c.client.Close()
	}
	_, err := call[types.Empty](ctx, c, quickCall, "Shutdown", &task.ShutdownRequest{Id: t.id, Now: true})
	if err != nil && c.isClosed() {
		err = nil // it left before it answered
	}
	addr := t.Info().ShimAddress
	t.m.wg.Go(func() {
		if !t.gone(c.closed) {
			t.m.cfg.Log.Warn("killing a shim that did not leave", "id", t.id, "namespace", t.namespace)
			if err := t.killShim(c); err != nil {
				t.m.cfg.Log.Error("cannot kill a shim", "id", t.id, "namespace", t.namespace, "error", err)
			}
		}
		if err := errors.Join(c.client.Close(), removeSocket(addr)); err != nil {
			t.m.cfg.Log.Warn("cannot clean up after a shim", "id", t.id, "namespace", t.namespace, "error", err)
		}
	})
	return err
}

// awaitGone waits for the end of a shim that was asked to exit, and kills it if it does not.
func (t *Task) awaitGone(c *conn, s *shim) error {
	if c.joined {
		return c.client.Close()
	}
	var err error
	gone := c.closed
	if s.child != nil {
		// A shim lingers for its clients, so do not be one; its own end is the news.
		err = c.client.Close()
		gone = s.child.Done()
	}
	if !t.gone(gone) {
		err = errors.Join(err, t.killShim(c))
	}
	return errors.Join(err, c.client.Close(), removeSocket(s.address.Address))
}

// gone waits for the end of a shim, and returns false if it did not end in shutdownLimit.
func (t *Task) gone(end <-chan struct{}) bool {
	ctx, stop := withPatience(context.Background(), shutdownLimit, t.shimPid)
	defer stop()
	select {
	case <-end:
		return true
	case <-ctx.Done():
		return false
	}
}

// killShim kills the shim and no other process: as long as its connection is open, its pid is not
// reused. The shim of a sandbox is not killed.
func (t *Task) killShim(c *conn) error {
	if c.joined {
		return nil
	}
	t.mu.Lock()
	child, pid := t.child, t.info.ShimPid
	t.mu.Unlock()
	if child != nil {
		return child.Signal(unix.SIGKILL)
	}
	return killPid(int(pid), c)
}

// killPid kills the process at the other end of a connection. While the connection is open, the pid
// is that process's.
func killPid(pid int, c *conn) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("open shim process %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a pidfd
	if c.isClosed() {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// removeSocket removes a shim's socket file. The name is random and never used again.
func removeSocket(addr string) error {
	if addr == "" {
		return nil
	}
	path, err := rpc.SocketPath(addr)
	if err != nil {
		return nil //nolint:nilerr // no file then
	}
	return removeFile(path)
}
