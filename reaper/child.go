package reaper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotChild is returned for a pid that is not a child of this process.
var ErrNotChild = errors.New("not a child of this process")

// Exit is how a process ended.
type Exit struct {
	Pid int
	// Status is the exit code, or 128 plus the number of the signal that killed it.
	Status int
	// At is when the exit was collected.
	At time.Time
}

// Child is one process, running or not. It need not be closed.
type Child struct {
	pid    int
	reaper *Reaper
	handle *handle // of an adopted process; nil for children
	done   chan struct{}
	exit   Exit // written before done is closed
}

// Pid returns the process's pid. After Done it may belong to another process.
func (c *Child) Pid() int { return c.pid }

// Done is closed once the exit is known.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit returns how the process ended. It may only be called after Done.
func (c *Child) Exit() Exit { return c.exit }

// Wait waits for the exit or the end of ctx.
func (c *Child) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-c.done:
		return c.exit, nil
	default:
	}
	select {
	case <-c.done:
		return c.exit, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("wait for process %d: %w", c.pid, ctx.Err())
	}
}

// Signal sends a signal to the process and to no other. It returns os.ErrProcessDone once the
// exit has been collected; a signal to one that has died but is not collected yet has no effect.
func (c *Child) Signal(sig syscall.Signal) error {
	c.reaper.mu.Lock()
	defer c.reaper.mu.Unlock()
	select {
	case <-c.done:
		return os.ErrProcessDone
	default:
	}
	if c.handle != nil {
		err := c.handle.signal(sig)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal process %d: %w", c.pid, err)
		}
		return err
	}
	if err := unix.Kill(c.pid, sig); err != nil {
		return fmt.Errorf("signal process %d: %w", c.pid, err)
	}
	return nil
}

// Capture remembers the exits of unclaimed children, from its opening to its closing. Open
// it before starting a process that will leave children behind; keep it open only until
// their pids are known, since it grows with each exit.
type Capture struct {
	reaper *Reaper
	exits  map[int]Exit // guarded by reaper.mu
}

// Capture opens a Capture. It has to be closed.
func (r *Reaper) Capture() *Capture {
	c := &Capture{reaper: r, exits: make(map[int]Exit)}
	r.mu.Lock()
	r.captures[c] = struct{}{}
	r.mu.Unlock()
	return c
}

// Claim returns the Child of that pid, also if it has exited since the Capture was opened. A pid
// that is not a child of this process is ErrNotChild. Claiming twice returns the same.
func (c *Capture) Claim(pid int) (*Child, error) {
	r := c.reaper
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := c.exits[pid]; ok {
		child := &Child{pid: pid, reaper: r, done: make(chan struct{}), exit: e}
		close(child.done)
		return child, nil
	}
	if err := uncollected(pid); err != nil {
		return nil, fmt.Errorf("claim process %d: %w", pid, err)
	}
	return r.childLocked(pid), nil
}

// Close discards the captured exits. Claimed children stay valid.
func (c *Capture) Close() {
	c.reaper.mu.Lock()
	delete(c.reaper.captures, c)
	c.reaper.mu.Unlock()
}

// uncollected reports whether pid is a child, alive or dead, that has not been collected yet.
func uncollected(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD), errors.Is(err, unix.EINVAL):
			return ErrNotChild
		default:
			return fmt.Errorf("look for child: %w", err)
		}
	}
}
