package runtime

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/task"
)

// The exits of shims that are not cleat's.
//
// Ours keeps an exit on record and sends it until a daemon has it. Others forward theirs for some seconds
// only, know it for as long as they live, and write nothing down. So what the daemon learns of such an exit,
// by an event, by Wait, or by State when it comes back, it records in the bundle itself, publishes, and
// writes to the state: the code outlives the shim, and is published once however often the daemon restarts.

// forwardTime is how long a shim may take to forward an exit that it has answered Wait with. Its own event
// comes in its place among its others; one of ours in its stead need not.
const forwardTime = 5 * time.Second

// recordExit puts the exit into the bundle, for when the shim is dead, unless there is one.
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

// awaitForeignExit learns the exit from a shim that may not forward events reliably.
func (m *Manager) awaitForeignExit(ctx context.Context, t *Task, c *conn) {
	m.wg.Go(func() {
		resp, err := call[task.WaitResponse](ctx, c, 0, "Wait", &task.WaitRequest{Id: t.id})
		if err != nil {
			return // the connection's end or the task's; both have their watchers
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
