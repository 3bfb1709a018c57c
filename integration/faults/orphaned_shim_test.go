package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// wipe removes the files below dir, except mounts and the daemon's log.
func wipe(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	harness.Must(t, err)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Name() == "rootfs" {
			continue
		}
		if e.IsDir() {
			wipe(t, path)
		}
		_ = os.Remove(path) // a directory with a rootfs stays
	}
}

// TestOrphanedShim_ContainerEnded_Exits deletes the bundle, the socket or the whole state directory of a shim.
func TestOrphanedShim_ContainerEnded_Exits(t *testing.T) {
	bundle := func(d *harness.Daemon) string {
		return filepath.Join(d.State, "io.containerd.runtime.v2.task", "default", "c")
	}
	sockets := func(d *harness.Daemon) string { return filepath.Join(d.State, "s") }
	state := func(d *harness.Daemon) string { return d.State }
	for name, tc := range map[string]struct {
		gone        func(*harness.Daemon) string
		serving     bool // the daemon runs
		afterTheEnd bool // the container has already ended
	}{
		"bundle":                     {gone: bundle},
		"bundle, after the end":      {gone: bundle, afterTheEnd: true},
		"bundle, daemon runs":        {gone: bundle, serving: true},
		"bundle, later, daemon runs": {gone: bundle, serving: true, afterTheEnd: true},
		"socket":                     {gone: sockets},
		"socket, after the end":      {gone: sockets, afterTheEnd: true},
		"state directory":            {gone: state},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := harness.Start(t)
			ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
			pid := fixture.StartTask(ctx, d, tasks, "c")
			if !tc.serving {
				d.Kill9()
			}
			end := func() {
				harness.Must(t, syscall.Kill(pid, syscall.SIGKILL))
				d.Eventually("the container has ended", func() error {
					if harness.Alive(pid) {
						return fmt.Errorf("process %d is alive", pid)
					}
					return nil
				})
			}
			if tc.afterTheEnd {
				end()
			}
			wipe(t, tc.gone(d))
			if !tc.afterTheEnd {
				if n := len(d.ShimProcesses()); n != 1 {
					t.Fatalf("%d shims while the container runs", n)
				}
				end()
			}
			d.Eventually("the shim exits", func() error {
				if pids := d.ShimProcesses(); len(pids) > 0 {
					return fmt.Errorf("%d is alive", pids)
				}
				return nil
			})
			if !tc.serving {
				d.Begin()
			}
			ctx, conn := fixture.GRPC(d)
			tasks = tasksapi.NewTasksClient(conn)
			if name == "socket" || name == "socket, after the end" {
				fixture.WaitTask(ctx, d, tasks, "c", 137) // the exit is readable
			}
			// The remaining records can be deleted.
			d.Eventually("the task is deleted", func() error {
				_, _ = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "c"})
				list, err := tasks.List(ctx, &tasksapi.ListTasksRequest{})
				if err == nil && len(list.GetTasks()) > 0 {
					err = fmt.Errorf("left: %v", list.GetTasks())
				}
				return err
			})
		})
	}
}
