package faults

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestDaemonStart_UnresponsiveShims_KeepsContainers(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	n, k := harness.Size(10, 1000), harness.Size(3, 50)
	c := fixture.Client(d)
	harness.Parallel(n, func(i int) { quickRun(d, c, fmt.Sprintf("c%d", i), "sleep", "1000") })
	before, shims := d.All(), d.Shims()
	d.Kill9()
	var thaws []func()
	for i := range k {
		thaws = append(thaws, harness.Freeze(t, shims[fmt.Sprintf("c%d", i)].Pid))
	}
	harness.Within(t, "starting the daemon", d.Begin)
	d.Eventually("the other shims are connected", func() error {
		for id, c := range d.All() {
			if !stopped(id, k) && c.Status != "running" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
	d.Eventually("the stopped shims are shown as unknown", func() error {
		for id, s := range d.Shims() {
			if stopped(id, k) && s.State != "unresponsive" {
				return fmt.Errorf("%s is %s", id, s.State)
			}
		}
		return nil
	})
	for id, c := range d.All() {
		if stopped(id, k) && c.Status != "unknown" {
			t.Errorf("%s is %s, want unknown", id, c.Status)
		}
		if !harness.Alive(before[id].Pid) {
			t.Errorf("%s was killed", id)
		}
	}
	for _, thaw := range thaws {
		thaw()
	}
	d.Eventually("all shims are connected", func() error {
		for id, c := range d.All() {
			if c.Status != "running" || c.Pid != before[id].Pid {
				return fmt.Errorf("%s is %s, pid %d, before %d", id, c.Status, c.Pid, before[id].Pid)
			}
		}
		return nil
	})
	if out := d.Cleat("exec", "c0", "echo", "well"); out != "well" {
		t.Errorf("exec in a container whose shim was stopped: %q", out)
	}
}

// stopped reports whether a container, c0 and so on, is among the first k.
func stopped(id string, k int) bool {
	var i int
	_, err := fmt.Sscanf(id, "c%d", &i)
	return err == nil && i < k
}

func TestStuckShim_DoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	n := harness.Size(10, 200)
	c := fixture.Client(d)
	harness.Parallel(n, func(i int) { quickRun(d, c, fmt.Sprintf("c%d", i), "sleep", "1000") })
	thaw := harness.Freeze(t, d.Shims()["c0"].Pid)

	harness.Within(t, "a hundred lists next to a stopped shim", func() { // at a second for each shim they would take too long
		for range 100 {
			list, err := c.List(t.Context(), client.ListRequest{All: true})
			harness.Must(t, err)
			if len(list) != n {
				t.Fatalf("%d containers listed", len(list))
			}
		}
	})
	harness.Within(t, "shim ls, run, exec and rm next to a stopped shim", func() {
		if len(d.Shims()) != n {
			t.Error("shim ls does not show every shim")
		}
		d.Cleat("run", "--rm", "busybox", "true")
		d.Cleat("exec", "c1", "true")
		d.Cleat("rm", "--force", "c1")
	})
	// The daemon requests metrics from all shims in parallel, each with a deadline.
	d.Eventually("stats show the others next to a stopped shim", func() error {
		if out, stderr, _ := d.Try("stats", "--no-stream"); !strings.Contains(out, "c2") {
			return fmt.Errorf("%q, %q", out, stderr)
		}
		return nil
	})
	harness.Within(t, "a call to the stopped shim itself", func() {
		if err := c.CloseIO(t.Context(), "c0", ""); !errdefs.IsUnavailable(err) {
			t.Errorf("call to a stopped shim: %v, want unavailable", err)
		}
	})
	harness.Within(t, "stopping the daemon", d.Stop)
	d.Begin()
	thaw()
	d.Eventually("the shim is connected", func() error {
		if s := d.Ps("c0").Status; s != "running" {
			return errors.New(s)
		}
		return nil
	})
}
