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
	"github.com/cleatproject/cleat/proto/types"
)

// What was announced of a task.
//
// Those who listen hear of each task's create, start, exit and delete, from its shim or in a dead shim's stead.
// What they have heard is noted in the bundle, so that shims and daemons may die in any order: nothing is announced
// again by the next daemon, and the end of a task is not forgotten that was announced before its request was answered.

// announce makes the exit of the init known, then publishes it unless that was done.
func (t *Task) announce(e events.Event, exit Exit) error {
	t.announcing.Lock()
	defer t.announcing.Unlock()
	t.setExit(exit)
	if t.announced || t.bundle.has(toldFile) {
		return nil
	}
	if t.foreign {
		if err := t.recordExit(exit); err != nil {
			return err
		}
	}
	if err := t.m.cfg.Publish(e); err != nil {
		return err
	}
	t.announced = true
	if t.m.cfg.Written != nil && !t.m.cfg.Written() {
		return t.note(heldFile)
	}
	return t.note(toldFile)
}

// announceDead announces the exit on behalf of a dead shim and remembers that it did.
func (m *Manager) announceDead(t *Task, e Exit) error {
	if t.bundle.has(announcedFile) {
		return nil
	}
	if err := t.announceExit(e); err != nil {
		return err
	}
	return t.note(announcedFile)
}

// announceDelete announces that the task is deleted, in its dead shim's stead and once.
func (t *Task) announceDelete(e Exit) error {
	t.announcing.Lock()
	defer t.announcing.Unlock()
	if t.deleteTold || !t.listened() || t.bundle.has(deletedFile) {
		return nil
	}
	err := t.m.publishTask(t, "/tasks/delete", "containerd.events.TaskDelete", &apievents.TaskDelete{ // an init has no exec id
		ContainerId: t.id, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: types.FromTime(e.At),
	})
	if err != nil {
		return fmt.Errorf("announce deletion of %s: %w", t.id, err)
	}
	t.deleteTold = true
	return t.note(deletedFile)
}

// announceEnd announces the end of a task that was taken away without its shim, if anybody was told of the task.
func (t *Task) announceEnd() error {
	if !t.listened() {
		return nil
	}
	e := Exit{Pid: t.Info().Pid, Status: uint32(128 + unix.SIGKILL), At: time.Now().UTC()}
	if rec, err := exitrecord.Read(t.bundle.path); err == nil {
		e = Exit{Pid: uint32(rec.Pid), Status: uint32(rec.Status), At: rec.ExitedAt}
	}
	if err := t.m.announceDead(t, e); err != nil {
		return err
	}
	t.setExit(e)
	return t.announceDelete(t.Info().Exit)
}

// listened reports whether anybody was told of the task, and so has to be told of its end.
func (t *Task) listened() bool {
	return !t.bundle.has(pendingFile) || t.bundle.has(createdFile)
}

// noteCreated learns which init is the task's, and remembers that a task was announced which is not committed yet.
func (t *Task) noteCreated(pid uint32) {
	t.update(func(i *Info) {
		if i.Pid == 0 {
			i.Pid = pid
		}
	})
	if !t.bundle.has(pendingFile) {
		return
	}
	if err := t.note(createdFile); err != nil {
		t.m.cfg.Log.Warn("a task's end may not be announced", "id", t.id, "namespace", t.namespace, "error", err)
	}
}

// noteDelete records that the task's shim has deleted it, and makes the task invisible: the request
// that asked for the deletion removes the rest.
func (t *Task) noteDelete(ev *apievents.TaskDelete) {
	if ev.Id != "" && ev.Id != t.id || !t.mayDelete(ev.Pid) {
		return // of an exec'd process, or of an earlier task
	}
	if !t.recovered {
		// Else the daemon that asked for the deletion was killed, and nothing but another request
		// removes what is left.
		t.m.hide(t)
	}
	t.announcing.Lock()
	defer t.announcing.Unlock()
	t.deleteTold = true
	if err := t.note(deletedFile); err != nil {
		t.m.cfg.Log.Warn("cannot write marker; deletion may be published twice", "id", t.id, "namespace", t.namespace, "error", err)
	}
}

// mayDelete reports whether a deletion of an init with that pid can be this task's: the event of an
// earlier task with the same name may arrive late.
func (t *Task) mayDelete(pid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info.Pid == pid || t.info.Pid == 0 && t.recovered || t.foreign && pid == 0
}

// wasDeleted reports whether the task's deletion was published.
func (t *Task) wasDeleted() bool {
	t.announcing.Lock()
	defer t.announcing.Unlock()
	return t.deleteTold
}

// noteDeleted remembers that a shim has deleted its container, and told of it or is about to. One that was started
// to adopt a container may have found none, or one whose exit was on record by then, and has told nothing.
func (t *Task) noteDeleted() error {
	if !t.bundle.has(exitrecord.FileName) || t.bundle.has(revivedFile) {
		return nil
	}
	return errors.Join(t.note(announcedFile), t.note(deletedFile))
}

// note puts an empty file into the bundle, unless that has been removed.
func (t *Task) note(name string) error {
	err := t.keep(func() error { return writeEmpty(t.bundle.file(name)) })
	if takesNoWrites(err) { // the task must be managed all the same
		t.m.cfg.Log.Warn("cannot write marker; an event may be published twice", "id", t.id, "namespace", t.namespace, "marker", name, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("note %s of task %s: %w", name, t.id, err)
	}
	return nil
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

// keep has something written into the bundle, unless that has been removed: nobody will ask then, and what stands
// there may be the next one's.
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
