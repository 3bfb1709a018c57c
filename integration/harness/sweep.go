package harness

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Moments is the number of steps at which a run is interrupted.
func Moments() int { return Size(16, 100) }

// Interruption is where an attempt interrupts its operation: at a step, which is a change in the watched directories.
type Interruption struct {
	t     *testing.T
	step  int // counts from 1; 0 does not interrupt
	mask  uint32
	dirs  []string
	count int
}

// Sweep calls try n times. The first attempt is not interrupted and counts the steps of the operation in dirs. The
// others are interrupted at steps spread evenly from the first to the last. Try reports whether the operation had
// completed by then; both outcomes have to occur.
func (d *Daemon) Sweep(n int, dirs []string, try func(i int, at *Interruption) (done bool)) {
	d.T.Helper()
	d.sweep(n, changes, dirs, try)
}

// SweepWrites is Sweep with each write to a file as a step, too.
func (d *Daemon) SweepWrites(n int, dirs []string, try func(i int, at *Interruption) (done bool)) {
	d.T.Helper()
	d.sweep(n, changes|unix.IN_MODIFY, dirs, try)
}

func (d *Daemon) sweep(n int, mask uint32, dirs []string, try func(i int, at *Interruption) (done bool)) {
	d.T.Helper()
	seen := make(map[bool]int)
	total := 0
	for i := range n {
		at := &Interruption{t: d.T, mask: mask, dirs: dirs}
		if i > 0 {
			at.step = 1 + (i-1)*total/(n-1)
		}
		seen[try(i, at)]++
		if i == 0 {
			total = at.count
		}
	}
	if total == 0 || len(seen) < 2 {
		d.T.Fatalf("of %d attempts over %d steps %d completed and %d did not", n, total, seen[true], seen[false])
	}
}

// AtStep returns an interruption at a step in dirs, counted from 1.
func (d *Daemon) AtStep(step int, dirs []string) *Interruption {
	return &Interruption{t: d.T, step: step, mask: changes, dirs: dirs}
}

// String describes the interruption.
func (a *Interruption) String() string {
	if a.step == 0 {
		return "without an interruption"
	}
	return fmt.Sprintf("interrupted at step %d", a.step)
}

// Wait calls start, which begins the operation, and interrupt at the step. It returns after that, or once complete
// returns nil. Interrupt runs in another goroutine.
func (a *Interruption) Wait(start func(), complete func() error, interrupt func()) {
	a.t.Helper()
	started, reached := make(chan struct{}), make(chan struct{})
	s := watch(a.t, a.mask, a.step, func() {
		<-started
		interrupt()
		close(reached)
	}, a.dirs...)
	start()
	close(started)
	Eventually(a.t, "the operation reaches its step or completes", func() error {
		select {
		case <-reached:
			return nil
		default:
			return complete()
		}
	})
	a.count = len(s.Stop(a.t))
}

// Run starts a command and calls interrupt at the step. It returns after that, or at the command's end. The caller
// waits for the command.
func (a *Interruption) Run(cmd *exec.Cmd, interrupt func()) {
	a.t.Helper()
	a.Wait(func() { Must(a.t, cmd.Start()) }, func() error {
		if Alive(cmd.Process.Pid) {
			return errors.New("the command runs")
		}
		return nil
	}, interrupt)
}

// Signal returns a function that sends a command a signal.
func Signal(cmd *exec.Cmd, sig syscall.Signal) func() {
	return func() { _ = cmd.Process.Signal(sig) } // the command may have ended
}

// Pause waits for a moment that the test varies, such as that of an interruption. It must not be used to wait for an
// event: see Eventually.
func Pause(moment time.Duration) {
	timer := time.NewTimer(moment)
	<-timer.C
}
