package faults

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	apievents "github.com/cleatproject/cleat/proto/events"
)

func TestExits_DaemonAway_ArePublishedOnce(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	n := harness.Size(20, 500)
	dir, open := harness.Gate(t, n)
	code := func(i int) int { return 1 + i%250 }
	harness.Parallel(n, func(i int) {
		d.Cleat("run", "-d", "--name", fmt.Sprintf("c%d", i), "-v", dir+":/go",
			"busybox", "sh", "-c", fmt.Sprintf("read x < /go/gate; exit %d", code(i)))
	})
	before := fixture.LastCursor(d)
	d.Kill9()
	open()
	for i := range n {
		record := filepath.Join(d.State, fmt.Sprintf("io.containerd.runtime.v2.task/default/c%d/exit.json", i))
		harness.Eventually(t, "every shim records its exit", harness.Exists(record), d.Log)
	}
	// The absence itself is under test.
	harness.Pause(time.Duration(harness.Size(int(harness.Away), int(60*time.Second))))
	d.Begin()
	d.Eventually("every container is shown as ended", func() error {
		for id, c := range d.All() {
			if c.Status != "stopped" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
	all := d.All()
	for i := range n {
		if c := all[fmt.Sprintf("c%d", i)]; c.ExitCode != code(i) {
			t.Errorf("c%d: exit code %d, want %d", i, c.ExitCode, code(i))
		}
	}
	exits := publishedExits(d, before, n)
	for i := range n {
		if got := exits[fmt.Sprintf("c%d", i)]; !slices.Equal(got, []uint32{uint32(code(i))}) {
			t.Errorf("c%d: published exits %v, want one: %d", i, got, code(i))
		}
	}
}

// publishedExits collects the exits of inits after a cursor until n tasks were deleted; the deletion is the last event of
// a task.
func publishedExits(d *harness.Daemon, cursor uint64, n int) map[string][]uint32 {
	d.T.Helper()
	found := make(map[string][]uint32)
	deleted := make(map[string]bool)
	ctx, cancel := context.WithTimeout(d.T.Context(), harness.Limit)
	defer cancel()
	for e, err := range fixture.Client(d).Events(ctx, client.EventsRequest{Cursor: cursor}) {
		harness.Must(d.T, err)
		switch e.Topic {
		case client.TopicExit:
			var ev apievents.TaskExit
			harness.Must(d.T, ev.Unmarshal(e.Value))
			if ev.Id == ev.ContainerId {
				found[ev.ContainerId] = append(found[ev.ContainerId], ev.ExitStatus)
			}
		case client.TopicDelete:
			var ev apievents.TaskDelete
			harness.Must(d.T, ev.Unmarshal(e.Value))
			deleted[ev.ContainerId] = true
		}
		if len(deleted) == n {
			return found
		}
	}
	d.T.Fatalf("events of %d deletions, want %d", len(deleted), n)
	return nil
}
