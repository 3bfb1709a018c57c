package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client"
	apievents "github.com/cleatproject/cleat/proto/events"
)

// startForeign starts a daemon whose containers get containerd's shim, with a delay in its verb delete.
func startForeign(t *testing.T) *Daemon {
	t.Helper()
	real, err := exec.LookPath("containerd-shim-runc-v2")
	must(t, err)
	base, err := os.MkdirTemp("", "cleat-it")
	must(t, err)
	foreign := filepath.Join(base, "containerd-shim-slow-v2")
	must(t, os.WriteFile(foreign, []byte("#!/bin/sh\nfor last; do :; done\n[ \"$last\" != delete ] || sleep 3\nexec "+real+" \"$@\"\n"), 0o755))
	config := filepath.Join(base, "config.toml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\n[runtimes]\n\"io.containerd.runc.v2\" = %q\n", foreign), 0o600))
	return StartAt(t, base, "--config", config)
}

// gated is a spec of a script that reads /go/gate.
func gated(t *testing.T, dir, script string) *specs.Spec {
	t.Helper()
	s := busyboxSpec(t, "sh", "-c", script)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/go", Type: "bind", Source: dir, Options: []string{"rbind", "rw"}})
	return s
}

// exitsTold subscribes as a reconnecting client, over gRPC, and collects the exits of inits until it has one of each
// container.
func (d *Daemon) exitsTold(ids ...string) map[string][]uint32 {
	d.t.Helper()
	ctx, conn := d.grpc()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stream, err := eventsapi.NewEventsClient(conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{"topic==/tasks/exit"}})
	must(d.t, err)
	told := make(map[string][]uint32)
	for slices.ContainsFunc(ids, func(id string) bool { return told[id] == nil }) {
		e, err := stream.Recv()
		if err != nil {
			d.t.Fatalf("exits %v only: %v\n%s", told, err, d.Log())
		}
		var exit apievents.TaskExit
		must(d.t, exit.Unmarshal(e.GetEvent().GetValue()))
		told[exit.ContainerId] = append(told[exit.ContainerId], exit.ExitStatus)
	}
	return told
}

// exitsLogged returns every published exit.
func (d *Daemon) exitsLogged() map[string][]uint32 {
	d.t.Helper()
	last := d.lastCursor()
	logged := make(map[string][]uint32)
	d.eachEvent(d.Client(), client.EventsRequest{FromStart: true, AllNamespaces: true}, func(e client.Event) bool {
		if e.Topic == client.TopicExit {
			var exit apievents.TaskExit
			must(d.t, exit.Unmarshal(e.Value))
			logged[exit.ContainerId] = append(logged[exit.ContainerId], exit.ExitStatus)
		}
		return e.Cursor < last
	})
	return logged
}

// TestForeignShims_DaemonAway_ExitsArePublishedOnce has one containerd shim that no longer tries to report an exit
// (it does so after a few attempts), one that died as well, and one whose exit was reported before.
func TestForeignShims_DaemonAway_ExitsArePublishedOnce(t *testing.T) {
	d := startForeign(t)
	dir, open := gate(t, 1)
	ctx, tasks := d.createTask("ends", gated(t, dir, "read x < /go/gate; exit 7"), "")
	ends := d.startTask(ctx, tasks, "ends")
	d.createTask("shimless", busyboxSpec(t, "sleep", "1000"), "")
	shimless := d.startTask(ctx, tasks, "shimless")
	d.createTask("stays", busyboxSpec(t, "sleep", "1000"), "")
	d.startTask(ctx, tasks, "stays")
	d.createTask("told", busyboxSpec(t, "sh", "-c", "exit 5"), "")
	d.startTask(ctx, tasks, "told")
	d.createTask("toldshimless", busyboxSpec(t, "sh", "-c", "exit 6"), "")
	d.startTask(ctx, tasks, "toldshimless")
	d.Eventually("exits are published", func() error {
		if got := d.exitsLogged(); len(got) != 2 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	shims := d.shims()

	d.Kill9()
	open()
	d.Eventually("the container has ended", gone(ends))
	killPid(t, shims["toldshimless"].Pid)
	// The absence itself is under test.
	pause(away)
	killPid(t, shims["shimless"].Pid)
	d.Begin()
	d.Eventually("unreported exits are known", func() error { // before a client returns
		if got := d.exitsLogged(); got["ends"] == nil || got["shimless"] == nil {
			return fmt.Errorf("%v", got)
		}
		return nil
	})

	told := d.exitsTold("ends", "shimless")
	if len(told) != 2 || !slices.Equal(told["ends"], []uint32{7}) || !slices.Equal(told["shimless"], []uint32{137}) {
		t.Errorf("exits for a reconnecting client: %v", told)
	}
	if alive(shimless) {
		t.Error("the container of a dead shim is left")
	}
	ctx, conn := d.grpc()
	tasks = tasksapi.NewTasksClient(conn)
	want := map[string]uint32{"ends": 7, "shimless": 137, "told": 5, "toldshimless": 6}
	for id, code := range want {
		d.waitTask(ctx, tasks, id, code)
	}
	d.Restart() // nothing is published twice
	ctx, conn = d.grpc()
	tasks = tasksapi.NewTasksClient(conn)
	for id, code := range want {
		d.waitTask(ctx, tasks, id, code)
		if got := d.exitsLogged()[id]; !slices.Equal(got, []uint32{code}) {
			t.Errorf("published exits of %s: %v, want %d", id, got, code)
		}
		deleted, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
		if err != nil || deleted.ExitStatus != code {
			t.Errorf("delete %s: %v, %v", id, deleted, err)
		}
	}
	d.status("stays", "running")
	if bundles, err := filepath.Glob(filepath.Join(d.State, "io.containerd.runtime.v2.task/default/*")); err != nil || len(bundles) != 1 {
		t.Errorf("bundles left: %v, %v", bundles, err)
	}
}
