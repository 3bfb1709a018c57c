package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	apievents "github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// Events of a task: the walk through the table of ending.go. A phase is written to the bundle after
// the events that lead to it have been published, and before a shim's own event is.

// advance takes the task on by h: it publishes what the daemon has to and writes the phase. exit is
// what the events report; forwarded, if not nil, is a shim's event that reports it. On an error the
// phase stays, and the call may be repeated.
func (t *Task) advance(h happening, exit Exit, forwarded *events.Event) error {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	next, do := step(t.state.Phase, h)
	state := t.state
	state.Phase = next
	if do&publishExit != 0 {
		if err := t.publishExit(exit, forwarded); err != nil {
			return err
		}
		state.Held = t.m.cfg.Written != nil && !t.m.cfg.Written()
	}
	if do&publishDelete != 0 {
		if err := t.publishDelete(exit); err != nil {
			return err
		}
	}
	switch h {
	case evCommitted:
		state.Committed = true
	case evShimDied, evShimEmpty:
		state.CleanedUp = true
	}
	return t.setStateLocked(state)
}

// setStateLocked changes the state, in memory and in the bundle. t.reporting is held.
func (t *Task) setStateLocked(state bundleState) error {
	if state == t.state {
		return nil
	}
	err := t.keep(func() error { return t.bundle.writeState(state) })
	if takesNoWrites(err) && state.Committed == t.state.Committed { // the task must be managed all the same
		t.m.cfg.Log.Warn("cannot write state; an event may be published twice", "id", t.id, "namespace", t.namespace, "phase", state.Phase, "error", err)
		err = nil
	}
	if err == nil {
		t.state = state
	}
	return err
}

// setRevived writes whether a shim was started that has not reported that it has the container.
func (t *Task) setRevived(revived bool) error {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	state := t.state
	state.Revived = revived
	return t.setStateLocked(state)
}

// durable returns the state. It waits for an event that is being published.
func (t *Task) durable() bundleState {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	return t.state
}

// publishExit publishes the exit of the init: by the shim's event, or by one in its place. The exit
// that a foreign shim reports is recorded before, since the shim does not.
func (t *Task) publishExit(e Exit, forwarded *events.Event) error {
	if t.foreign {
		if err := t.recordExit(e); err != nil {
			return err
		}
	}
	if forwarded != nil {
		return t.m.cfg.Publish(*forwarded)
	}
	err := t.publish("/tasks/exit", "containerd.events.TaskExit", &apievents.TaskExit{
		ContainerId: t.id, Id: t.id, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: types.FromTime(e.At),
	})
	if err != nil {
		return fmt.Errorf("publish exit of %s: %w", t.id, err)
	}
	return nil
}

// publishDelete publishes the deletion of the task in place of its shim.
func (t *Task) publishDelete(e Exit) error {
	err := t.publish("/tasks/delete", "containerd.events.TaskDelete", &apievents.TaskDelete{ // an init has no exec id
		ContainerId: t.id, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: types.FromTime(e.At),
	})
	if err != nil {
		return fmt.Errorf("publish deletion of %s: %w", t.id, err)
	}
	return nil
}

func (t *Task) publish(topic, typeURL string, msg rpc.Message) error {
	data, err := rpc.Marshal(msg)
	if err != nil {
		return err
	}
	return t.m.cfg.Publish(events.Event{
		Timestamp: time.Now().UTC(), Namespace: t.namespace, Topic: topic, TypeURL: typeURL, Value: data,
	})
}

// exit makes the exit known that a shim reports, and publishes it unless that was done.
func (t *Task) exit(e Exit, forwarded *events.Event) error {
	t.setExit(e)
	return t.advance(evExited, e, forwarded)
}

// removeUnshimmed reports the end of a task that was removed without its shim.
func (t *Task) removeUnshimmed() error {
	e := Exit{Pid: t.Info().Pid, Status: uint32(128 + unix.SIGKILL), At: time.Now().UTC()}
	if rec, err := exitrecord.Read(t.bundle.path); err == nil {
		e = Exit{Pid: uint32(rec.Pid), Status: uint32(rec.Status), At: rec.ExitedAt}
	}
	if t.durable().Phase != unreported {
		t.setExit(e)
	}
	if err := t.advance(evShimDied, e, nil); err != nil {
		return err
	}
	return t.advance(evRemoved, t.Info().Exit, nil)
}

// created takes a shim's report that it has created the container: it says which process is the init.
func (t *Task) created(pid uint32) {
	t.update(func(i *Info) {
		if i.Pid == 0 {
			i.Pid = pid
		}
	})
	if err := t.advance(evCreated, Exit{}, nil); err != nil {
		t.m.cfg.Log.Warn("cannot write state; exit event may be lost", "id", t.id, "namespace", t.namespace, "error", err)
	}
}

// deletedByShim takes a shim's report that it has deleted the task, and makes the task invisible:
// the request that asked for the deletion removes the rest.
func (t *Task) deletedByShim(ev *apievents.TaskDelete) {
	if ev.Id != "" && ev.Id != t.id || !t.mayDelete(ev.Pid) {
		return // of an exec'd process, or of an earlier task
	}
	if !t.recovered {
		// Else the daemon that asked for the deletion was killed, and only another request removes
		// what is left.
		t.m.hide(t)
	}
	if err := t.advance(evDeleted, Exit{}, nil); err != nil {
		t.m.cfg.Log.Warn("cannot write state; deletion may be published twice", "id", t.id, "namespace", t.namespace, "error", err)
	}
}

// mayDelete reports whether a deletion of an init with that pid can be this task's: the event of an
// earlier task with the same name may arrive late.
func (t *Task) mayDelete(pid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info.Pid == pid || t.info.Pid == 0 && t.recovered || t.foreign && pid == 0
}

// emptyShim takes note of a shim that has deleted its container and reported that. A shim that was
// started to adopt a container may have found none, or one whose exit was recorded by then, and has
// reported nothing.
func (t *Task) emptyShim() error {
	if !t.bundle.has(exitrecord.FileName) || t.durable().Revived {
		return nil
	}
	return t.advance(evShimEmpty, Exit{}, nil)
}

// takesNoWrites reports whether err is of a disk that is full, read-only or broken.
func takesNoWrites(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// keep calls write, which writes into the bundle, unless the bundle was removed: the next task of
// the same name may have its own in that place.
func (t *Task) keep(write func() error) error {
	t.keeping.Lock()
	defer t.keeping.Unlock()
	if t.cleared {
		return nil
	}
	if err := write(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
