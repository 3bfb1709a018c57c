package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	apievents "github.com/cleatproject/cleat/proto/events"
)

// The tests of these files are the lines of "What hurts users of the peers", by their numbers.

// gate makes a FIFO that containers wait at with `read x < /go/gate`; the returned function lets n
// of them pass.
func gate(t *testing.T, n int) (dir string, open func()) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "gate")
	must(t, unix.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return dir, func() {
		_, err := f.WriteString(strings.Repeat("\n", n))
		must(t, err)
	}
}

// parallel calls f for 0..n-1, a few at a time.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// away is how long the peers' shims go on trying to tell of an exit, and a little more.
const away = 16 * time.Second

func TestHurts01ExitsLostWhileTheDaemonIsAway(t *testing.T) {
	d := Start(t)
	d.Busybox()
	n := size(20, 500)
	dir, open := gate(t, n)
	code := func(i int) int { return 1 + i%250 }
	parallel(n, func(i int) {
		d.Cleat("run", "-d", "--name", fmt.Sprintf("c%d", i), "-v", dir+":/go",
			"busybox", "sh", "-c", fmt.Sprintf("read x < /go/gate; exit %d", code(i)))
	})
	before := d.lastCursor()
	d.Kill9()
	open()
	for i := range n {
		record := filepath.Join(d.State, fmt.Sprintf("io.containerd.runtime.v2.task/default/c%d/exit.json", i))
		eventually(t, "every shim records its exit", exists(record), d.Log)
	}
	// The absence itself is what is tested.
	pause(time.Duration(size(int(away), int(60*time.Second))))
	d.Begin()
	d.Eventually("every container is known to have ended", func() error {
		for id, c := range d.all() {
			if c.Status != "stopped" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
	all := d.all()
	for i := range n {
		if c := all[fmt.Sprintf("c%d", i)]; c.ExitCode != code(i) {
			t.Errorf("c%d: exit code %d, want %d", i, c.ExitCode, code(i))
		}
	}
	exits := d.announced(before, n)
	for i := range n {
		if got := exits[fmt.Sprintf("c%d", i)]; !slices.Equal(got, []uint32{uint32(code(i))}) {
			t.Errorf("c%d: announced exits %v, want one: %d", i, got, code(i))
		}
	}
}

// lastCursor is the cursor of the last event so far.
func (d *Daemon) lastCursor() uint64 {
	d.t.Helper()
	c := d.Client()
	mark := fmt.Sprintf("marks-the-end-%d", time.Now().UnixNano())
	must(d.t, c.CreateNamespace(d.t.Context(), mark))
	must(d.t, c.DeleteNamespace(d.t.Context(), mark))
	last := uint64(0)
	req := client.EventsRequest{FromStart: true, AllNamespaces: true}
	d.eachEvent(c, req, func(e client.Event) bool {
		last = e.Cursor
		return e.Topic != "/namespaces/delete" || !strings.Contains(string(e.Value), mark)
	})
	return last
}

// announced gathers the exits of inits after a cursor until n tasks were deleted, which is the last
// that is told of each.
func (d *Daemon) announced(cursor uint64, n int) map[string][]uint32 {
	d.t.Helper()
	found := make(map[string][]uint32)
	deleted := make(map[string]bool)
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	for e, err := range d.Client().Events(ctx, client.EventsRequest{Cursor: cursor}) {
		must(d.t, err)
		switch e.Topic {
		case client.TopicExit:
			var ev apievents.TaskExit
			must(d.t, ev.Unmarshal(e.Value))
			if ev.Id == ev.ContainerId {
				found[ev.ContainerId] = append(found[ev.ContainerId], ev.ExitStatus)
			}
		case client.TopicDelete:
			var ev apievents.TaskDelete
			must(d.t, ev.Unmarshal(e.Value))
			deleted[ev.ContainerId] = true
		}
		if len(deleted) == n {
			return found
		}
	}
	d.t.Fatalf("the events do not tell of every deletion: %d of %d", len(deleted), n)
	return nil
}

func TestHurts02LiveContainersSurviveShimsThatDoNotAnswer(t *testing.T) {
	d := Start(t)
	d.Busybox()
	n, k := size(10, 1000), size(3, 50)
	c := d.Client()
	parallel(n, func(i int) { d.quickRun(c, fmt.Sprintf("c%d", i), "sleep", "1000") })
	before, shims := d.all(), d.shims()
	d.Kill9()
	var thaws []func()
	for i := range k {
		thaws = append(thaws, freeze(t, shims[fmt.Sprintf("c%d", i)].Pid))
	}
	within(t, "starting the daemon", d.Begin)
	d.Eventually("the others are back", func() error {
		for id, c := range d.all() {
			if !stopped(id, k) && c.Status != "running" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
	d.Eventually("the stopped shims are known not to answer", func() error {
		for id, s := range d.shims() {
			if stopped(id, k) && s.State != "unresponsive" {
				return fmt.Errorf("%s is %s", id, s.State)
			}
		}
		return nil
	})
	for id, c := range d.all() {
		if stopped(id, k) && c.Status != "unknown" {
			t.Errorf("%s is %s, want unknown", id, c.Status)
		}
		if !alive(before[id].Pid) {
			t.Errorf("%s was killed", id)
		}
	}
	for _, thaw := range thaws {
		thaw()
	}
	d.Eventually("all are back", func() error {
		for id, c := range d.all() {
			if c.Status != "running" || c.Pid != before[id].Pid {
				return fmt.Errorf("%s is %s, process %d, was %d", id, c.Status, c.Pid, before[id].Pid)
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

func TestHurts03OneStuckShimHoldsUpNobody(t *testing.T) {
	d := Start(t)
	d.Busybox()
	n := size(10, 200)
	c := d.Client()
	parallel(n, func(i int) { d.quickRun(c, fmt.Sprintf("c%d", i), "sleep", "1000") })
	thaw := freeze(t, d.shims()["c0"].Pid)

	within(t, "a hundred lists beside a stopped shim", func() { // at a second each they would take too long
		for range 100 {
			list, err := c.List(t.Context(), client.ListRequest{All: true})
			must(t, err)
			if len(list) != n {
				t.Fatalf("%d containers listed", len(list))
			}
		}
	})
	within(t, "shim ls, run, exec and rm beside a stopped shim", func() {
		if len(d.shims()) != n {
			t.Error("shim ls does not show every shim")
		}
		d.Cleat("run", "--rm", "busybox", "true")
		d.Cleat("exec", "c1", "true")
		d.Cleat("rm", "--force", "c1")
	})
	// Metrics are asked of the shims, all at once, each with a deadline.
	d.Eventually("stats show the others beside a stopped shim", func() error {
		if out, stderr, _ := d.Try("stats", "--no-stream"); !strings.Contains(out, "c2") {
			return fmt.Errorf("%q, %q", out, stderr)
		}
		return nil
	})
	within(t, "a call to the stopped shim itself", func() {
		if err := c.CloseIO(t.Context(), "c0", ""); !errdefs.IsUnavailable(err) {
			t.Errorf("it is answered: %v; want unavailable", err)
		}
	})
	within(t, "stopping the daemon", d.Stop)
	d.Begin()
	thaw()
	d.Eventually("it is back", func() error {
		if s := d.ps("c0").Status; s != "running" {
			return errors.New(s)
		}
		return nil
	})
}
