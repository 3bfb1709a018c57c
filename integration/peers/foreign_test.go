package peers

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	apievents "github.com/cleatproject/cleat/proto/events"
)

// exitsReceived subscribes as a reconnecting client, over gRPC, and collects the exits of inits until it has one of each
// container.
func exitsReceived(d *harness.Daemon, ids ...string) map[string][]uint32 {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	ctx, cancel := context.WithTimeout(ctx, harness.Limit)
	defer cancel()
	stream, err := eventsapi.NewEventsClient(conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{"topic==/tasks/exit"}})
	harness.Must(d.T, err)
	exits := make(map[string][]uint32)
	for slices.ContainsFunc(ids, func(id string) bool { return exits[id] == nil }) {
		e, err := stream.Recv()
		if err != nil {
			d.T.Fatalf("exits %v only: %v\n%s", exits, err, d.Log())
		}
		var exit apievents.TaskExit
		harness.Must(d.T, exit.Unmarshal(e.GetEvent().GetValue()))
		exits[exit.ContainerId] = append(exits[exit.ContainerId], exit.ExitStatus)
	}
	return exits
}

// exitsLogged returns every published exit.
func exitsLogged(d *harness.Daemon) map[string][]uint32 {
	d.T.Helper()
	last := fixture.LastCursor(d)
	logged := make(map[string][]uint32)
	fixture.EachEvent(d, fixture.Client(d), client.EventsRequest{FromStart: true, AllNamespaces: true}, func(e client.Event) bool {
		if e.Topic == client.TopicExit {
			var exit apievents.TaskExit
			harness.Must(d.T, exit.Unmarshal(e.Value))
			logged[exit.ContainerId] = append(logged[exit.ContainerId], exit.ExitStatus)
		}
		return e.Cursor < last
	})
	return logged
}

// TestForeignShims_DaemonAway_ExitsArePublishedOnce has one containerd shim that no longer tries to report an exit
// (it does so after a few attempts), one that died as well, and one whose exit was reported before.
func TestForeignShims_DaemonAway_ExitsArePublishedOnce(t *testing.T) {
	t.Parallel()
	d := harness.StartForeign(t)
	dir, open := harness.Gate(t, 1)
	ctx, tasks := fixture.CreateTask(d, "ends", fixture.Gated(t, dir, "read x < /go/gate; exit 7"), "")
	ends := fixture.StartTask(ctx, d, tasks, "ends")
	fixture.CreateTask(d, "shimless", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	shimless := fixture.StartTask(ctx, d, tasks, "shimless")
	fixture.CreateTask(d, "stays", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	fixture.StartTask(ctx, d, tasks, "stays")
	fixture.CreateTask(d, "reported", fixture.BusyboxSpec(t, "sh", "-c", "exit 5"), "")
	fixture.StartTask(ctx, d, tasks, "reported")
	fixture.CreateTask(d, "reportedshimless", fixture.BusyboxSpec(t, "sh", "-c", "exit 6"), "")
	fixture.StartTask(ctx, d, tasks, "reportedshimless")
	d.Eventually("exits are published", func() error {
		if got := exitsLogged(d); len(got) != 2 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	shims := d.Shims()

	d.Kill9()
	open()
	d.Eventually("the container has ended", harness.Gone(ends))
	harness.KillPid(t, shims["reportedshimless"].Pid)
	// The absence itself is under test.
	harness.Pause(harness.Away)
	harness.KillPid(t, shims["shimless"].Pid)
	d.Begin()
	d.Eventually("unreported exits are known", func() error { // before a client returns
		if got := exitsLogged(d); got["ends"] == nil || got["shimless"] == nil {
			return fmt.Errorf("%v", got)
		}
		return nil
	})

	exits := exitsReceived(d, "ends", "shimless")
	if len(exits) != 2 || !slices.Equal(exits["ends"], []uint32{7}) || !slices.Equal(exits["shimless"], []uint32{137}) {
		t.Errorf("exits for a reconnecting client: %v", exits)
	}
	if harness.Alive(shimless) {
		t.Error("the container of a dead shim is left")
	}
	ctx, conn := fixture.GRPC(d)
	tasks = tasksapi.NewTasksClient(conn)
	want := map[string]uint32{"ends": 7, "shimless": 137, "reported": 5, "reportedshimless": 6}
	for id, code := range want {
		fixture.WaitTask(ctx, d, tasks, id, code)
	}
	d.Restart() // nothing is published twice
	ctx, conn = fixture.GRPC(d)
	tasks = tasksapi.NewTasksClient(conn)
	for id, code := range want {
		fixture.WaitTask(ctx, d, tasks, id, code)
		if got := exitsLogged(d)[id]; !slices.Equal(got, []uint32{code}) {
			t.Errorf("published exits of %s: %v, want %d", id, got, code)
		}
		deleted, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
		if err != nil || deleted.ExitStatus != code {
			t.Errorf("delete %s: %v, %v", id, deleted, err)
		}
	}
	d.Status("stays", "running")
	if bundles, err := filepath.Glob(filepath.Join(d.State, "io.containerd.runtime.v2.task/default/*")); err != nil || len(bundles) != 1 {
		t.Errorf("bundles left: %v, %v", bundles, err)
	}
}
