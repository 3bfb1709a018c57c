package runtime

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/task"
)

// Exits of foreign shims.
//
// cleat's shim keeps an exit on record and sends it until a daemon has it. Others forward their exits for
// some seconds only, know them only while they live, and record nothing. So an exit that the daemon learns
// of from such a shim, by an event, by Wait, or by State after a restart, is recorded in the bundle by the
// daemon itself, published, and written to the state: the code outlives the shim, and is published once
// however often the daemon restarts.

// forwardTime is how long a shim may take to forward an exit that it has returned from Wait. Its own event
// keeps its position among its other events; one that the daemon publishes instead need not.
const forwardTime = 5 * time.Second

// recordExit writes the exit to the bundle, for when the shim is dead, unless there is one.
func (t *Task) recordExit(e Exit) error {
	return t.keep(func() error {
		if _, err := exitrecord.Read(t.bundle.path); err == nil {
			return nil
		}
		return exitrecord.Write(t.bundle.path, exitrecord.Record{
			ID: t.id, Pid: int(e.Pid), Status: int(e.Status), ExitedAt: e.At,
		})
	})
}

// awaitForeignExit waits for the exit of a shim that may not forward events reliably.
func (m *Manager) awaitForeignExit(ctx context.Context, t *Task, c *conn) {
	m.wg.Go(func() {
		resp, err := call[task.WaitResponse](ctx, c, 0, "Wait", &task.WaitRequest{Id: t.id})
		if err != nil {
			return // the connection or the task has ended; both have watchers
		}
		e := Exit{Pid: t.Info().Pid, Status: resp.ExitStatus, At: resp.ExitedAt.Time()}
		t.setExit(e)
		timer := time.NewTimer(forwardTime)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if t.isRemoving() {
			return
		}
		if err := t.exit(e, nil); err != nil {
			m.cfg.Log.Error("cannot publish an exit", "id", t.id, "namespace", t.namespace, "error", err)
		}
	})
}
