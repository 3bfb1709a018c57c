package faults

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestReusedPID_AfterShimDied_IsNotKilled(t *testing.T) {
	t.Parallel()
	if !harness.InPIDNamespace(t) {
		return
	}
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	quickRun(d, c, "c", "sleep", "1000")
	before, shim := d.Ps("c"), d.Shims()["c"].Pid
	// The daemon dies, then the shim, then the container; other processes reuse their pids.
	d.Kill9()
	harness.Must(t, unix.Kill(shim, unix.SIGKILL))
	harness.Must(t, unix.Kill(before.Pid, unix.SIGKILL))
	harness.Eventually(t, "container and shim have ended", harness.Gone(before.Pid), d.Log)
	harness.Eventually(t, "container and shim have ended", harness.Gone(shim), d.Log)
	bystanders := []int{bystander(t, before.Pid), bystander(t, shim)}
	d.Begin()
	d.Status("c", "stopped")
	d.Cleat("rm", "--force", "c")
	for _, pid := range bystanders {
		if !harness.Alive(pid) {
			t.Errorf("process %d with a reused pid was killed", pid)
		}
	}
}

func TestReusedPID_LiveShim_SendsNoSignal(t *testing.T) {
	t.Parallel()
	if !harness.InPIDNamespace(t) {
		return
	}
	d := harness.Start(t)
	d.Busybox()
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	pid := fixture.StartTask(ctx, d, tasks, "c")
	harness.Must(t, unix.Kill(pid, unix.SIGKILL))
	fixture.WaitTask(ctx, d, tasks, "c", 137)
	harness.Eventually(t, "the pid is free", func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			return fmt.Errorf("process %d exists", pid)
		}
		return nil
	}, d.Log)
	other := bystander(t, pid)
	killTask(ctx, d, tasks, "c")
	fixture.DeleteTask(ctx, d, tasks, "c")
	if !harness.Alive(other) {
		t.Errorf("process %d with the reused pid of an init was killed", other)
	}
}

// bystander starts an unrelated process with a certain pid.
func bystander(t *testing.T, pid int) int {
	t.Helper()
	got := 0
	harness.Eventually(t, fmt.Sprintf("a process gets the pid %d", pid), func() error {
		harness.Must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0o644))
		p, err := os.StartProcess("/bin/busybox", []string{"sleep", "1000"}, &os.ProcAttr{})
		harness.Must(t, err)
		end := func() {
			_ = p.Kill() // it may have ended
			_, _ = p.Wait()
		}
		if p.Pid != pid {
			end()
			return fmt.Errorf("got the pid %d", p.Pid)
		}
		t.Cleanup(end)
		got = p.Pid
		return nil
	})
	return got
}
