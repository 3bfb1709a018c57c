package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	apievents "github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// The exits of shims that are not cleat's.
//
// Ours keeps an exit on record and sends it until a daemon has it. Others forward theirs for some seconds
// only, know it for as long as they live, and write nothing down. So what the daemon learns of such an exit,
// by an event, by Wait, or by State when it comes back, it records in the bundle itself, announces, and
// notes as told: the code outlives the shim, and is announced once however often the daemon restarts.

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

// announceExit announces the exit on behalf of a shim that did not.
func (t *Task) announceExit(e Exit) error {
	data, err := rpc.Marshal(&apievents.TaskExit{
		ContainerId: t.id, Id: t.id, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: types.FromTime(e.At),
	})
	if err != nil {
		return err
	}
	err = t.announce(events.Event{
		Timestamp: time.Now().UTC(), Namespace: t.namespace, Topic: "/tasks/exit",
		TypeURL: "containerd.events.TaskExit", Value: data,
	}, e)
	if err != nil {
		return fmt.Errorf("announce exit of %s: %w", t.id, err)
	}
	return nil
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
		if err := t.announceExit(e); err != nil {
			m.cfg.Log.Error("cannot announce an exit", "id", t.id, "namespace", t.namespace, "error", err)
		}
	})
}
