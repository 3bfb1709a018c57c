package integration

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReusedPID_AfterShimDied_IsNotKilled(t *testing.T) {
	d := Start(t)
	d.Busybox()
	c := d.Client()
	d.quickRun(c, "c", "sleep", "1000")
	before, shim := d.ps("c"), d.shims()["c"].Pid
	// The daemon dies, then the shim, then the container; other processes reuse their pids.
	d.Kill9()
	must(t, unix.Kill(shim, unix.SIGKILL))
	must(t, unix.Kill(before.Pid, unix.SIGKILL))
	eventually(t, "container and shim have ended", gone(before.Pid), d.Log)
	eventually(t, "container and shim have ended", gone(shim), d.Log)
	bystanders := []int{bystander(t, before.Pid), bystander(t, shim)}
	d.Begin()
	d.status("c", "stopped")
	d.Cleat("rm", "--force", "c")
	for _, pid := range bystanders {
		if !alive(pid) {
			t.Errorf("process %d with a reused pid was killed", pid)
		}
	}
}

func TestReusedPID_LiveShim_SendsNoSignal(t *testing.T) {
	d := Start(t)
	d.Busybox()
	ctx, tasks := d.createTask("c", busyboxSpec(t, "sleep", "1000"), "")
	pid := d.startTask(ctx, tasks, "c")
	must(t, unix.Kill(pid, unix.SIGKILL))
	d.waitTask(ctx, tasks, "c", 137)
	eventually(t, "the pid is free", func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			return fmt.Errorf("process %d exists", pid)
		}
		return nil
	}, d.Log)
	other := bystander(t, pid)
	d.killTask(ctx, tasks, "c")
	d.deleteTask(ctx, tasks, "c")
	if !alive(other) {
		t.Errorf("process %d with the reused pid of an init was killed", other)
	}
}

// bystander starts an unrelated process with a certain pid.
func bystander(t *testing.T, pid int) int {
	t.Helper()
	got := 0
	eventually(t, fmt.Sprintf("a process gets the pid %d", pid), func() error {
		must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0o644))
		p, err := os.StartProcess("/bin/busybox", []string{"sleep", "1000"}, &os.ProcAttr{})
		must(t, err)
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
	}, func() string { return "" })
	return got
}
