package reaper

import (
	"os/exec"
	"runtime"

	runc "github.com/containerd/go-runc"
)

var _ runc.ProcessMonitor = (*Reaper)(nil)

// Start implements go-runc's ProcessMonitor. The channel gets the exit and is closed. Hand it to
// Wait.
func (r *Reaper) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	child, err := r.start(cmd)
	if err != nil {
		return nil, err
	}
	exits := make(chan runc.Exit, 1)
	go func() { // ends with the child or the reaper
		defer close(exits)
		r.forward(child, exits)
	}()
	return exits, nil
}

// StartLocked is Start from a thread that lives as long as the child, for commands with a parent
// death signal.
func (r *Reaper) StartLocked(cmd *exec.Cmd) (chan runc.Exit, error) {
	exits := make(chan runc.Exit, 1)
	started := make(chan error, 1)
	go func() { // ends with the child or the reaper
		defer close(exits)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		child, err := r.start(cmd)
		started <- err
		if err == nil {
			r.forward(child, exits)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return exits, nil
}

func (r *Reaper) forward(child *Child, exits chan<- runc.Exit) {
	select {
	case <-child.done:
	case <-r.stopped:
		select {
		case <-child.done:
		default:
			return
		}
	}
	exits <- runc.Exit{Timestamp: child.exit.At, Pid: child.pid, Status: child.exit.Status}
}

// Wait waits for the exit that Start announced, and for the goroutines by which os/exec copies
// the command's output. It returns the status as in Exit, or ErrClosed where the reaper was
// closed before the exit.
func (r *Reaper) Wait(cmd *exec.Cmd, exits chan runc.Exit) (int, error) {
	e, ok := <-exits
	if !ok {
		return -1, ErrClosed
	}
	// The child is collected already: Wait only joins the copying and frees the handle, and its
	// complaint that there is no such child is the expected one.
	_ = cmd.Wait()
	return e.Status, nil
}
