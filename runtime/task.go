package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// Link is the state of the connection to a task's shim.
type Link string

// The states of a link.
const (
	Ready        Link = "ready"
	Connecting   Link = "connecting"
	Unresponsive Link = "unresponsive"
	Dead         Link = "dead"
)

// Exit describes how a process ended.
type Exit struct {
	Pid    uint32
	Status uint32
	At     time.Time
}

// Info is the Manager's view of a task. Status is UNKNOWN while the shim has not answered since the
// Manager started.
type Info struct {
	Namespace, ID         string
	Bundle                string
	Pid                   uint32
	Status                types.Status
	Exit                  Exit // valid when Status is STOPPED
	StartedAt             time.Time
	Stdin, Stdout, Stderr string
	Terminal              bool
	OOMKilled             bool

	Runtime     string // as requested
	ShimPid     uint32
	ShimVersion string
	ShimAddress string
	Link        Link
}

// Task is a container's execution. Its methods may be called concurrently.
type Task struct {
	m             *Manager
	namespace, id string
	bundle        *bundle
	foreign       bool // its shim is not cleat's
	visible       bool // guarded by m.mu
	recovered     bool // created by an earlier daemon

	mu       sync.Mutex
	info     Info
	conn     *conn
	changed  chan struct{} // closed and replaced when conn, link or removing changes
	exited   chan struct{} // closed once info.Exit is known
	removing bool          // Delete or an undo is removing the task
	child    *reaper.Child // the shim, if this Manager started it
	onEnd    []func()      // run once when the shim has exited

	reporting sync.Mutex  // held while events of its end are published
	state     bundleState // guarded by reporting; what the bundle holds, or should hold

	cleaning sync.Mutex // held during clean-up without the shim, or while a new one starts

	abandoning sync.Mutex // held by Abandon

	keeping sync.Mutex // held while files are added to the bundle or it is removed
	cleared bool       // the bundle is removed; another task of that name may have one at its path
}

// newTask returns the task of a bundle; binary is its shim's.
func (m *Manager) newTask(b *bundle, binary string, info Info) *Task {
	info.Namespace, info.ID, info.Bundle = b.namespace, b.id, b.path
	return &Task{
		m: m, namespace: b.namespace, id: b.id, bundle: b, foreign: !native(binary), info: info,
		changed: make(chan struct{}), exited: make(chan struct{}),
	}
}

// ID returns the container's id.
func (t *Task) ID() string { return t.id }

// Namespace returns the task's namespace.
func (t *Task) Namespace() string { return t.namespace }

// Info returns the known state, without calling the shim.
func (t *Task) Info() Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// Exited is closed once the init's exit is known; Info has it.
func (t *Task) Exited() <-chan struct{} { return t.exited }

// Commit marks the request that created the task as answered: from now on a restart keeps the task.
func (t *Task) Commit() error {
	if err := t.advance(evCommitted, Exit{}, nil); err != nil {
		return fmt.Errorf("commit task %s: %w", t.id, err)
	}
	t.m.show(t)
	return nil
}

// Scratch creates a directory on disk that is removed with the task at the latest.
func (t *Task) Scratch(name string) (string, error) {
	dir, err := os.MkdirTemp(t.bundle.work, name+"-")
	if err != nil {
		return "", fmt.Errorf("task %s: make directory: %w", t.id, err)
	}
	return dir, nil
}

// update changes the view under the lock.
func (t *Task) update(f func(*Info)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.info)
}

// setExit records the init's exit; a later call changes nothing.
func (t *Task) setExit(e Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.exited:
		return
	default:
	}
	t.info.Exit = e
	t.info.Status = types.Status_STOPPED
	close(t.exited)
}

// setConn replaces the connection; nil for none.
func (t *Task) setConn(c *conn, link Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = c
	t.info.Link = link
	close(t.changed)
	t.changed = make(chan struct{})
}

// adoptConn takes over a shim just launched.
func (t *Task) adoptConn(c *conn, s *shim) {
	t.mu.Lock()
	t.child = s.child
	t.info.ShimAddress = s.address.Address
	if s.child != nil {
		t.info.ShimPid = uint32(s.child.Pid())
		c.pid.Store(int32(s.child.Pid()))
	}
	t.mu.Unlock()
	t.setConn(c, Ready)
}

// setLink sets the state of the link; the connection is unchanged.
func (t *Task) setLink(link Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info.Link = link
}

// setRemoving marks the task as being removed. Calls that wait for a connection fail.
func (t *Task) setRemoving() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setRemovingLocked()
}

func (t *Task) setRemovingLocked() {
	t.removing = true
	close(t.changed)
	t.changed = make(chan struct{})
}

// claimRemoval is setRemoving for the first caller, and returns false for later ones.
func (t *Task) claimRemoval() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removing {
		return false
	}
	t.setRemovingLocked()
	return true
}

func (t *Task) isRemoving() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.removing
}

// onGone has f run once the shim has exited.
func (t *Task) onGone(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onEnd = append(t.onEnd, f)
}

// runGone runs the functions of onGone.
func (t *Task) runGone() {
	t.mu.Lock()
	fs := t.onEnd
	t.onEnd = nil
	t.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// disconnect drops the connection without touching the shim.
func (t *Task) disconnect() error {
	t.mu.Lock()
	c := t.conn
	t.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := c.client.Close(); err != nil {
		return fmt.Errorf("close connection to shim %s: %w", t.id, err)
	}
	return nil
}

// connection returns the connection and waits briefly for a pending one. It returns errdefs.ErrUnavailable if the
// shim does not answer, errdefs.ErrFailedPrecondition if it is dead, and errdefs.ErrNotFound if it has exited
// with its task.
func (t *Task) connection(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, quickCall, errSlow)
	defer cancel()
	for {
		t.mu.Lock()
		c, link, removing, changed := t.conn, t.info.Link, t.removing, t.changed
		t.mu.Unlock()
		if c != nil && !c.isClosed() {
			return c, nil
		}
		if link == Dead {
			return nil, fmt.Errorf("task %s: shim is dead, only delete is possible: %w", t.id, errdefs.ErrFailedPrecondition)
		}
		if removing {
			return nil, t.errRemoved()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSlow) {
				return nil, fmt.Errorf("task %s: no answer from shim: %w",
					t.id, reason.ShimSilent)
			}
			return nil, ctx.Err()
		}
	}
}

// errRemoved is returned to calls on a deleted task.
func (t *Task) errRemoved() error {
	return fmt.Errorf("task %s: deleted during the call: %w", t.id, reason.TaskNotFound)
}
