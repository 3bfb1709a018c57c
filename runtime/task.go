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

// Link says how a task's shim is reached at the moment.
type Link string

// The states of a link.
const (
	Ready        Link = "ready"
	Connecting   Link = "connecting"
	Unresponsive Link = "unresponsive"
	Dead         Link = "dead"
)

// Exit is how a process ended.
type Exit struct {
	Pid    uint32
	Status uint32
	At     time.Time
}

// Info is what the Manager knows of a task. Status is UNKNOWN while the shim has not answered
// since the Manager started.
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

	Runtime     string // as it was asked for
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
	recovered     bool // an earlier daemon made it

	mu       sync.Mutex
	info     Info
	conn     *conn
	changed  chan struct{} // closed and replaced when conn, link or removing changes
	exited   chan struct{} // closed once info.Exit is known
	removing bool          // Delete or an undo is taking the task away
	child    *reaper.Child // the shim, where this Manager started it
	onEnd    []func()      // run once when the shim is gone

	reporting sync.Mutex  // held while events of its end are published
	state     bundleState // guarded by reporting; what the bundle holds, or should hold

	cleaning sync.Mutex // held while the task is cleaned up after without its shim, or gets another

	abandoning sync.Mutex // held by Abandon

	keeping sync.Mutex // held while files come to the bundle, or it goes
	cleared bool       // the bundle is gone; another task of that name may have one in its place
}

// newTask returns the task of a bundle, whose shim's binary is named.
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

// Info returns what is known, without asking the shim.
func (t *Task) Info() Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// Exited is closed once the init's exit is known; Info has it.
func (t *Task) Exited() <-chan struct{} { return t.exited }

// Commit says that the request which made the task is answered: from now on a restart keeps it.
func (t *Task) Commit() error {
	if err := t.advance(evCommitted, Exit{}, nil); err != nil {
		return fmt.Errorf("commit task %s: %w", t.id, err)
	}
	t.m.show(t)
	return nil
}

// Scratch makes a directory on disk that goes with the task at the latest.
func (t *Task) Scratch(name string) (string, error) {
	dir, err := os.MkdirTemp(t.bundle.work, name+"-")
	if err != nil {
		return "", fmt.Errorf("task %s: make directory: %w", t.id, err)
	}
	return dir, nil
}

// update changes what is known under the lock.
func (t *Task) update(f func(*Info)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.info)
}

// setExit records the init's exit, once; it reports whether this was news.
func (t *Task) setExit(e Exit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.exited:
		return false
	default:
	}
	t.info.Exit = e
	t.info.Status = types.Status_STOPPED
	close(t.exited)
	return true
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

// setLink notes how the shim is reached while its connection stays what it is.
func (t *Task) setLink(link Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info.Link = link
}

// setRemoving notes that the task is being taken away. Whoever waits for a connection waits in vain.
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

// claimRemoval is setRemoving for the first caller, and returns false for the others.
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

// onGone has f run once the shim is gone.
func (t *Task) onGone(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onEnd = append(t.onEnd, f)
}

// runGone runs what onGone gathered.
func (t *Task) runGone() {
	t.mu.Lock()
	fs := t.onEnd
	t.onEnd = nil
	t.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// disconnect drops the connection, leaving the shim alone.
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

// connection returns the connection, waiting briefly for one that is being made. A shim that does
// not answer is errdefs.ErrUnavailable, a dead one errdefs.ErrFailedPrecondition, one that has left with its task
// errdefs.ErrNotFound.
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
			return nil, fmt.Errorf("task %s: its shim is gone, only delete is left to do: %w", t.id, errdefs.ErrFailedPrecondition)
		}
		if removing {
			return nil, t.errRemoved()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSlow) {
				return nil, fmt.Errorf("task %s: no answer from its shim: %w",
					t.id, reason.ShimSilent)
			}
			return nil, ctx.Err()
		}
	}
}

// errRemoved answers calls that come too late.
func (t *Task) errRemoved() error {
	return fmt.Errorf("task %s: deleted during the call: %w", t.id, reason.TaskNotFound)
}
