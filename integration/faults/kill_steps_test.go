package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

// stepped runs a command of the CLI, kills the daemon at its nth step, and starts it again. It reports whether the
// command had that many steps, and whether it succeeded.
func stepped(d *harness.Daemon, n int, args ...string) (reached, succeeded bool) {
	d.T.Helper()
	killed := make(chan struct{})
	pid := d.Cmd.Process.Pid
	s := harness.WatchSteps(d.T, n, func() {
		_ = unix.Kill(pid, unix.SIGKILL) // this test's own process, which is not reaped yet
		close(killed)
	}, d.Watched()...)
	cmd := d.Command(args...)
	harness.Must(d.T, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case <-killed:
		<-d.Exited
		d.Begin()
		err = <-ended
		reached = true
	case err = <-ended:
	}
	seen := s.Stop(d.T)
	select {
	case <-killed:
		if !reached { // the command ended before the daemon
			<-d.Exited
			d.Begin()
			reached = true
		}
	default:
	}
	if reached {
		d.T.Logf("%s: killed at %s; the command: %v", args[0], seen[n-1], err)
	}
	return reached, err == nil
}

func TestDaemonKilled_AtEveryStepOfCreate(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for n, more := 1, true; more; n++ {
		id := fmt.Sprintf("c%d", n)
		var ok bool
		more, ok = stepped(d, n, "run", "-d", "--name", id, "busybox", "sleep", "1000")
		d.Eventually("shims equal live tasks", func() error { return consistent(d) })
		all := d.All()
		if _, there := all[id]; ok && !there || len(all) > 1 {
			t.Fatalf("step %d: run succeeded: %t; containers: %v", n, ok, all)
		}
		for id := range all {
			d.Status(id, "running")
			d.Cleat("rm", "--force", id)
		}
		d.Eventually("nothing is left", d.Leaks)
	}
}

func TestDaemonKilled_AtEveryStepOfDelete(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for n, more := 1, true; more; n++ {
		id := fmt.Sprintf("c%d", n)
		d.Cleat("run", "-d", "--name", id, "busybox", "sleep", "1000")
		more, _ = stepped(d, n, "rm", "--force", id)
		d.Eventually("shims equal live tasks", func() error { return consistent(d) })
		if _, stderr, code := d.Try("rm", "--force", id); code != 0 && !strings.Contains(stderr, "not found") {
			t.Fatalf("step %d: second removal: %s", n, stderr)
		}
		if all := d.All(); len(all) != 0 {
			t.Fatalf("step %d: containers: %v", n, all)
		}
		d.Eventually("nothing is left", d.Leaks)
	}
}
