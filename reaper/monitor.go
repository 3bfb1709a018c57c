package reaper

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"

	runc "github.com/containerd/go-runc"
)

var _ runc.ProcessMonitor = (*Reaper)(nil)

// Start implements go-runc's ProcessMonitor. The channel gets the exit and is closed. It is passed to
// Wait. When the context of a command from exec.CommandContext ends, the command is killed.
func (r *Reaper) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	child, err := r.startCancellable(cmd)
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
		child, err := r.startCancellable(cmd)
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

// startCancellable is start for commands that Wait waits for. It replaces the kill of os/exec, which could reach a
// later process with the pid of a child that the reaper has collected.
func (r *Reaper) startCancellable(cmd *exec.Cmd) (child *Child, err error) {
	if cmd.Cancel != nil {
		cmd.Cancel = func() error {
			r.mu.Lock() // start holds it until the child is registered
			c := child
			r.mu.Unlock()
			if c == nil {
				return os.ErrProcessDone
			}
			return c.Signal(syscall.SIGKILL)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	child, err = r.startLocked(cmd)
	return child, err
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

// Wait waits for the exit on Start's channel, and for the goroutines by which os/exec copies
// the command's output. It returns the status as in Exit, or ErrClosed if the reaper was
// closed before the exit.
func (r *Reaper) Wait(cmd *exec.Cmd, exits chan runc.Exit) (int, error) {
	e, ok := <-exits
	if !ok {
		return -1, ErrClosed
	}
	// The child is collected already: Wait only joins the copying, and its error about a missing child
	// is expected. After that error it keeps its pidfd until a garbage collection, which an idle process
	// does not have.
	_ = cmd.Wait()
	_ = cmd.Process.Release() // an error says that the pidfd was closed
	return e.Status, nil
}
