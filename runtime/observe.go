package runtime

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/events"
	apievents "github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// Observe accepts an event that a shim forwarded: it updates the task and then publishes the event, so
// that a subscriber that reacts to the event sees the state which it reports. The exit of an init is
// published once however often a shim repeats it, unless the daemon dies between publishing it and
// recording that. An error means that the event is not safe and the shim has to send it again.
func (m *Manager) Observe(e events.Event) error {
	switch e.Topic {
	case "/tasks/exit":
		return m.observeExit(e)
	case "/tasks/create":
		var ev apievents.TaskCreate
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.created(ev.Pid) })
	case "/tasks/delete":
		var ev apievents.TaskDelete
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.deletedByShim(&ev) })
	case "/tasks/start":
		var ev apievents.TaskStart
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.setRunning(ev.Pid) })
	case "/tasks/paused":
		var ev apievents.TaskPaused
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.setPaused(true) })
	case "/tasks/resumed":
		var ev apievents.TaskResumed
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.setPaused(false) })
	case "/tasks/oom":
		var ev apievents.TaskOOM
		if err := decodeEvent(e, &ev); err != nil {
			return err
		}
		return m.learn(e, ev.ContainerId, func(t *Task) { t.update(func(i *Info) { i.OOMKilled = true }) })
	default:
		return m.cfg.Publish(e)
	}
}

func decodeEvent(e events.Event, into rpc.Message) error {
	if err := into.Unmarshal(e.Value); err != nil {
		return fmt.Errorf("decode event %s: %w: %w", e.Topic, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// learn applies e to the task that it reports on, and publishes it.
func (m *Manager) learn(e events.Event, id string, apply func(*Task)) error {
	if t := m.lookup(e.Namespace, id); t != nil {
		apply(t)
	}
	return m.cfg.Publish(e)
}

func (m *Manager) observeExit(e events.Event) error {
	var ev apievents.TaskExit
	if err := decodeEvent(e, &ev); err != nil {
		return err
	}
	t := m.lookup(e.Namespace, ev.ContainerId)
	exit := Exit{Pid: ev.Pid, Status: ev.ExitStatus, At: ev.ExitedAt.Time()}
	if t == nil || ev.Id != ev.ContainerId || !t.owns(ev.Pid) {
		return m.cfg.Publish(e)
	}
	return t.exit(exit, &e)
}

// owns reports whether a shim's report of a process's end is about the task's init, and not about an earlier task
// with the same name: the event may arrive after the bundle is removed. The task's own shim has reported the create
// by then (created). Foreign shims need not report the same pid everywhere.
func (t *Task) owns(pid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.foreign || t.info.Pid == pid || t.info.Pid == 0 && t.recovered
}

// watch follows a task's connection until the task is removed or the Manager closes: when the
// connection breaks, watch reconnects, and cleans up after a shim that died.
func (m *Manager) watch(t *Task, c *conn) {
	m.spawn(func(ctx context.Context) {
		for c != nil {
			if !c.native {
				m.awaitForeignExit(ctx, t, c)
			}
			select {
			case <-c.closed:
			case <-ctx.Done():
				return
			}
			if t.isRemoving() || ctx.Err() != nil {
				return
			}
			c = m.connect(ctx, t)
		}
		if ctx.Err() == nil {
			m.removeAbandoned(t)
		}
	})
}

// removeAbandoned removes the remains of a task whose shim deleted it on its own and exited: the
// shim found itself without a bundle. The task has been invisible since, so no request will delete
// it.
func (m *Manager) removeAbandoned(t *Task) {
	if t.recovered || t.isRemoving() || t.Info().Link != Dead || t.durable().Phase != deleteReported {
		return
	}
	if _, err := t.deleteDead(); err != nil {
		m.cfg.Log.Error("cannot remove what is left of a task", "id", t.id, "namespace", t.namespace, "error", err)
	}
}

// apply takes over a shim's own report of its init. The exit that a foreign shim reports is published here:
// the shim may have stopped forwarding it. So is one that an earlier daemon had in memory only.
func (t *Task) apply(p *shimProcess) error {
	if p.status == types.Status_STOPPED {
		exit := Exit{Pid: p.pid, Status: p.exitStatus, At: p.exitedAt}
		t.setExit(exit)
		if t.foreign || t.durable().Held {
			if err := t.exit(exit, nil); err != nil {
				return err
			}
		}
	}
	t.update(func(i *Info) {
		i.Pid = p.pid
		i.Status = p.status
		i.Stdin, i.Stdout, i.Stderr, i.Terminal = p.stdin, p.stdout, p.stderr, p.terminal
		if !p.startedAt.IsZero() {
			i.StartedAt = p.startedAt
		}
		i.OOMKilled = i.OOMKilled || p.oomKilled
	})
	return nil
}
