package api

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestTaskAPIDetails(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sh", "-c", "read x < /proc/1/fd/0; exit 3"), "")
	_, conn := fixture.GRPC(d)

	update := func(r *anypb.Any) codes.Code {
		_, err := tasks.Update(ctx, &tasksapi.UpdateTaskRequest{ContainerID: "c", Resources: r})
		return status.Code(err)
	}
	pid := fixture.StartTask(ctx, d, tasks, "c")
	fixture.WaitTask(ctx, d, tasks, "c", 3) // stdin is /dev/null
	if harness.Alive(pid) {
		t.Errorf("process %d is alive after wait", pid)
	}
	fixture.WaitTask(ctx, d, tasks, "c", 3) // returns at once
	deleted, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "c"})
	if err != nil || deleted.ExitStatus != 3 || deleted.ExitedAt == nil || int(deleted.Pid) != pid {
		t.Errorf("delete: %v, %v", deleted, err)
	}

	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: fixture.Rootfs(d)})
	harness.Must(t, err)
	for kind, want := range map[string]codes.Code{
		"LinuxResources": codes.OK, "WindowsResources": codes.InvalidArgument,
	} {
		if got := update(&anypb.Any{TypeUrl: harness.ResourcesURL + kind, Value: []byte(`{"memory":{"limit":67108864}}`)}); got != want {
			t.Errorf("update by %s: %v, want %v", kind, got, want)
		}
	}
	if got := update(nil); got != codes.InvalidArgument {
		t.Errorf("update without resources: %v", got)
	}
	if url := fixture.MetricOf(ctx, t, tasks, "c").GetTypeUrl(); !strings.HasSuffix(url, ".Metrics") || !strings.Contains(url, "io.containerd.cgroups.v") {
		t.Errorf("metrics of the type %s", url)
	}
	_, err = tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "c"})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("checkpoint of a created task: %v", err)
	}
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", TaskApiAddress: "unix:///x"})
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("second create, at an address: %v", err)
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "c", Signal: uint32(unix.SIGKILL), All: true})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "c", 137)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "c"})
	harness.Must(t, err)
	_, err = containersapi.NewContainersClient(conn).Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
	harness.Must(t, err)
}

// TestDelete_InParallel_SucceedsOnce has several clients delete the same task: one succeeds, and the others receive
// "not found".
func TestDelete_InParallel_SucceedsOnce(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	for i := range 5 {
		id := fmt.Sprintf("c%d", i)
		ctx, tasks := fixture.CreateTask(d, id, fixture.BusyboxSpec(t, "true"), "")
		fixture.StartTask(ctx, d, tasks, id)
		fixture.WaitTask(ctx, d, tasks, id, 0)
		var got [8]codes.Code
		var wg sync.WaitGroup
		for k := range got {
			wg.Go(func() {
				_, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
				got[k] = status.Code(err)
			})
		}
		wg.Wait()
		slices.Sort(got[:])
		if got[0] != codes.OK || got[1] != codes.NotFound || got[len(got)-1] != codes.NotFound {
			t.Errorf("parallel deletes: %v", got)
		}
	}
}

func TestTaskAPI_StdioURIs(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	dir := t.TempDir()
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	fixture.StartTask(ctx, d, tasks, "c")
	logger := filepath.Join(dir, "logger")
	harness.Must(t, os.WriteFile(logger, []byte("#!/bin/sh\nexec 5>&-\ncat <&3 >"+dir+"/$2.log\n"), 0o755))
	exec := func(id, stdout string) {
		t.Helper()
		_, err := tasks.Exec(ctx, &tasksapi.ExecProcessRequest{
			ContainerID: "c", ExecID: id, Stdout: stdout,
			Spec: &anypb.Any{TypeUrl: harness.ResourcesURL + "Process", Value: []byte(`{"args":["/bin/echo","` + id + `"],"cwd":"/"}`)},
		})
		harness.Must(t, err)
		_, err = tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: "c", ExecID: id})
		harness.Must(t, err)
		resp, err := tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: "c", ExecID: id})
		if err != nil || resp.ExitStatus != 0 {
			t.Errorf("%s: %v, %v", id, resp, err)
		}
		deleted, err := tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: "c", ExecID: id})
		if err != nil || deleted.ID != id || deleted.ExitedAt == nil {
			t.Errorf("%s: %v, %v", id, deleted, err)
		}
	}
	exec("file", "file://"+filepath.Join(dir, "file.log"))
	exec("binary", "binary://"+logger+"?id=binary")
	harness.Must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	fifo, err := os.OpenFile(filepath.Join(dir, "fifo"), os.O_RDWR, 0)
	harness.Must(t, err)
	exec("fifo", filepath.Join(dir, "fifo"))
	buf := make([]byte, 100)
	n, err := fifo.Read(buf)
	harness.Must(t, err)
	harness.Must(t, fifo.Close())
	if string(buf[:n]) != "fifo\n" {
		t.Errorf("the FIFO holds %q", buf[:n])
	}
	for _, id := range []string{"file", "binary"} {
		d.Eventually("the output is logged", func() error {
			data, err := os.ReadFile(filepath.Join(dir, id+".log"))
			if err == nil && string(data) != id+"\n" {
				err = os.ErrInvalid
			}
			return err
		})
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "c", Signal: uint32(unix.SIGKILL)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "c", 137)
}
