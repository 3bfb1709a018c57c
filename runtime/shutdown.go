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
	err := t.askToExit(ctx, c)
	addr := t.Info().ShimAddress
	t.m.wg.Go(func() {
		err := t.m.endShim(t.bundle, c.closed, t.shimPid, func() error { return t.killShim(c) })
		if err := errors.Join(err, c.client.Close(), removeSocket(addr)); err != nil {
			t.m.cfg.Log.Warn("cannot clean up after a shim", "id", t.id, "namespace", t.namespace, "error", err)
		}
	})
	return err
}

// askToExit asks a shim that holds no container to exit. One that exits before it answers is not an error.
func (t *Task) askToExit(ctx context.Context, c *conn) error {
	_, err := call[types.Empty](ctx, c, quickCall, "Shutdown", &task.ShutdownRequest{Id: t.id, Now: true})
	if err != nil && c.isClosed() {
		return nil
	}
	return err
}

// awaitGone waits for the end of a shim that was asked to exit, and kills it if it does not.
func (t *Task) awaitGone(c *conn, s *shim) error {
	if c.joined {
		return c.client.Close()
	}
	var err error
	ended := c.closed
	if s.child != nil {
		// A shim waits for its clients, and the end of a child is known without a connection.
		err = c.client.Close()
		ended = s.child.Done()
	}
	err = errors.Join(err, t.m.endShim(t.bundle, ended, t.shimPid, func() error { return t.killShim(c) }))
	return errors.Join(err, c.client.Close(), removeSocket(s.address.Address))
}

// endShim waits until a shim that was asked to exit has ended, and kills it if it does not: of a task
// or a sandbox. pid returns 0 if it is not known.
func (m *Manager) endShim(b *bundle, ended <-chan struct{}, pid func() int, kill func() error) error {
	ctx, stop := withPatience(context.Background(), shutdownLimit, pid)
	defer stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	m.cfg.Log.Warn("killing a shim that does not exit", "id", b.id, "namespace", b.namespace, "pid", pid())
	if err := kill(); err != nil {
		return fmt.Errorf("kill shim of %s: %w", b.id, err)
	}
	return nil
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
