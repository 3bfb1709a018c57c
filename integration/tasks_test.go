package integration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// createTask creates a container and its task by the containerd API, as any of its clients does: the root file system
// is a directory of the host, read-only. runtime may be empty.
func (d *Daemon) createTask(id string, s *specs.Spec, runtime string) (context.Context, tasksapi.TasksClient) {
	d.t.Helper()
	ctx, conn := d.grpc()
	_, err := containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{
		Container: &containersapi.Container{
			ID: id, Runtime: &containersapi.Container_Runtime{Name: cmp.Or(runtime, "io.containerd.runc.v2")},
			Spec: apiSpec(d.t, s),
		},
	})
	must(d.t, err)
	tasks := tasksapi.NewTasksClient(conn)
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: d.rootfs()})
	if err != nil {
		d.t.Fatalf("create task %s: %v\n%s", id, err, d.Log())
	}
	return ctx, tasks
}

// apiSpec packs a spec for a container's record.
func apiSpec(t *testing.T, s *specs.Spec) *anypb.Any {
	t.Helper()
	data, err := json.Marshal(s)
	must(t, err)
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: data}
}

// rootfs returns mounts for the test image's file system, from a directory prepared by the test.
func (d *Daemon) rootfs() []*types.Mount {
	d.t.Helper()
	return []*types.Mount{{Type: "bind", Source: unpacked(d.t), Options: []string{"rbind", "rw"}}}
}

func (d *Daemon) startTask(ctx context.Context, tasks tasksapi.TasksClient, id string) (pid int) {
	d.t.Helper()
	resp, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id})
	must(d.t, err)
	return int(resp.Pid)
}

func (d *Daemon) waitTask(ctx context.Context, tasks tasksapi.TasksClient, id string, want uint32) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
	must(d.t, err)
	if resp.ExitStatus != want {
		d.t.Errorf("exit status of %s is %d, want %d", id, resp.ExitStatus, want)
	}
}

// metricOf requests a task's metrics until they are present: a slow shim is left out of a response.
func metricOf(ctx context.Context, t *testing.T, tasks tasksapi.TasksClient, id string) (data *anypb.Any) {
	t.Helper()
	eventually(t, "metrics of "+id, func() error {
		resp, err := tasks.Metrics(ctx, &tasksapi.MetricsRequest{Filters: []string{"id==" + id}})
		must(t, err)
		if len(resp.Metrics) != 1 || resp.Metrics[0].ID != id {
			return fmt.Errorf("%v", resp)
		}
		data = resp.Metrics[0].Data
		return nil
	}, func() string { return "" })
	return data
}

// killTask kills a task that has ended, which must fail with "not found".
func (d *Daemon) killTask(ctx context.Context, tasks tasksapi.TasksClient, id string) {
	d.t.Helper()
	_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	if !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		d.t.Errorf("kill of %s, which has ended: %v, want not found", id, err)
	}
}

func (d *Daemon) deleteTask(ctx context.Context, tasks tasksapi.TasksClient, id string) {
	d.t.Helper()
	_, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	must(d.t, err)
}

// unpacked returns a directory with the files of the test image.
func unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	for _, f := range busyboxFiles(t) {
		path := filepath.Join(dir, f.name)
		switch {
		case f.dir:
			must(t, os.MkdirAll(path, os.FileMode(f.mode)))
		case f.link != "":
			must(t, os.Symlink(f.link, path))
		default:
			must(t, os.WriteFile(path, []byte(f.body), os.FileMode(f.mode)))
		}
	}
	return dir
}
