package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	apievents "github.com/cleatproject/cleat/proto/events"
)

// gate creates a FIFO on which containers wait with `read x < /go/gate`; the returned function lets n of them pass.
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

// away is slightly longer than containerd's shims retry to report an exit.
const away = 16 * time.Second

func TestExits_DaemonAway_ArePublishedOnce(t *testing.T) {
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
	// The absence itself is under test.
	pause(time.Duration(size(int(away), int(60*time.Second))))
	d.Begin()
	d.Eventually("every container is shown as ended", func() error {
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
			t.Errorf("c%d: published exits %v, want one: %d", i, got, code(i))
		}
	}
}

// lastCursor is the cursor of the most recent event.
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

// announced collects the exits of inits after a cursor until n tasks were deleted; the deletion is the last event of
// a task.
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
	d.t.Fatalf("events of %d deletions, want %d", len(deleted), n)
	return nil
}
