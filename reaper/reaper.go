package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by methods of a closed Reaper.
var ErrClosed = errors.New("reaper is closed")

// Reaper collects the children of this process. Its methods may be called at any time from any
// goroutine. There must not be two in one process at the same time.
type Reaper struct {
	signals chan os.Signal
	stop    chan struct{}
	stopped chan struct{}

	// ownOnly ignores children that this Reaper has not started.
	ownOnly bool

	// mu is held across each fork, each collected exit and each signal sent.
	mu       sync.Mutex
	closed   bool
	children map[int]*Child
	captures map[*Capture]struct{}
	adopted  map[*Child]struct{} // those that Adopt waits for
	wg       sync.WaitGroup      // Adopt's; added to under mu while not closed
}

// New starts a Reaper that collects every child of this process, also orphans that the kernel gives
// it. No other code may wait for children then. It has to be closed.
func New() *Reaper { return begin(false) }

// NewOwn starts a Reaper that collects the children it has started itself. Other code may start and wait for
// children of its own, by os/exec for instance. It has to be closed.
func NewOwn() *Reaper { return begin(true) }

func begin(ownOnly bool) *Reaper {
	r := &Reaper{
		ownOnly:  ownOnly,
		signals:  make(chan os.Signal, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		children: make(map[int]*Child),
		captures: make(map[*Capture]struct{}),
		adopted:  make(map[*Child]struct{}),
	}
	signal.Notify(r.signals, syscall.SIGCHLD)
	go r.loop()
	return r
}

// SetSubreaper makes the kernel give this process the orphans among its descendants.
func SetSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// Close stops collecting. Children that have not exited are not affected; a waiter for
// one of them waits for its own context only.
func (r *Reaper) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	signal.Stop(r.signals)
	close(r.stop)
	<-r.stopped
	r.closeAdopted()
	return nil
}

// Spawn starts the command and returns it as a Child. The command's files should be *os.File:
// with other readers or writers os/exec copies in goroutines that only its Wait collects (use
// Start and Wait for those). A context given to exec.CommandContext is not watched: kill the
// Child instead.
func (r *Reaper) Spawn(cmd *exec.Cmd) (*Child, error) {
	child, err := r.start(cmd)
	if err != nil {
		return nil, err
	}
	// The reaper collects the pid; os need not keep a handle of its own.
	if err := cmd.Process.Release(); err != nil {
		return nil, fmt.Errorf("release handle of %s: %w", cmd.Path, err)
	}
	return child, nil
}

func (r *Reaper) start(cmd *exec.Cmd) (*Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.startLocked(cmd)
}

func (r *Reaper) startLocked(cmd *exec.Cmd) (*Child, error) {
	if r.closed {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, ErrClosed)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return r.childLocked(cmd.Process.Pid), nil
}

// childLocked returns the Child of an uncollected pid.
func (r *Reaper) childLocked(pid int) *Child {
	if c, ok := r.children[pid]; ok {
		return c
	}
	c := &Child{pid: pid, reaper: r, done: make(chan struct{})}
	r.children[pid] = c
	return c
}

func (r *Reaper) loop() {
	defer close(r.stopped)
	for {
		r.collect()
		select {
		case <-r.signals:
		case <-r.stop:
			return
		}
	}
}

// collect collects every exit the kernel has.
func (r *Reaper) collect() {
	for r.collectOne() {
	}
}

func (r *Reaper) collectOne() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ownOnly {
		return r.waitLocked(-1)
	}
	for pid := range r.children {
		r.waitLocked(pid)
	}
	return false
}

// waitLocked collects the exit of a child, or for -1 of any, and reports whether there was one.
func (r *Reaper) waitLocked(pid int) bool {
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return false // no children, or none that has exited
		}
		if ws.Exited() || ws.Signaled() {
			r.dispatchLocked(Exit{Pid: pid, Status: statusOf(ws), At: time.Now()})
		}
		return true
	}
}

func (r *Reaper) dispatchLocked(e Exit) {
	if c, ok := r.children[e.Pid]; ok {
		delete(r.children, e.Pid)
		c.exit = e
		close(c.done)
		return
	}
	for c := range r.captures {
		c.exits[e.Pid] = e
	}
}

// statusOf returns the status in the form of a shell: the exit code, or 128 plus the signal.
func statusOf(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
