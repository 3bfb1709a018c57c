package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
)

// TestRunsc_UnderShim lets gVisor's runtime create the containers: their processes run inside a user-space kernel,
// and the shim watches the process of that kernel as the init.
func TestRunsc_UnderShim(t *testing.T) {
	t.Parallel()
	runsc, err := exec.LookPath("runsc")
	harness.Must(t, err)
	dir := t.TempDir()
	// ptrace works on every host; runsc does not support the host's hybrid cgroups.
	binary := filepath.Join(dir, "runsc")
	harness.Must(t, os.WriteFile(binary, []byte("#!/bin/sh\nexec "+runsc+` --platform=ptrace --ignore-cgroups --network=none "$@"`+"\n"), 0o755))
	options, err := rpc.Marshal(&runcopts.Options{BinaryName: binary})
	harness.Must(t, err)
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	containers, tasks := containersapi.NewContainersClient(conn), tasksapi.NewTasksClient(conn)
	begin := func(id, script string) (pid int) {
		t.Helper()
		_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, "sh", "-c", script)),
			Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: options}},
		}})
		harness.Must(t, err)
		_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(d), Stdout: "file://" + filepath.Join(dir, id)})
		harness.Must(t, err)
		return fixture.StartTask(ctx, d, tasks, id)
	}

	begin("ends", "echo out; dmesg | head -n 1; exit 42")
	fixture.WaitTask(ctx, d, tasks, "ends", 42)
	fixture.DeleteTask(ctx, d, tasks, "ends")
	d.Eventually("output is logged", func() error {
		data, err := os.ReadFile(filepath.Join(dir, "ends"))
		if err == nil {
			err = harness.InOrder(string(data), "out\n", "gVisor")
		}
		return err
	})

	pid := begin("stays", `trap "exit 9" TERM; echo up; while :; do sleep 0.1; done`)
	d.Eventually("the program is ready", func() error {
		data, err := os.ReadFile(filepath.Join(dir, "stays"))
		if err == nil && string(data) != "up\n" {
			err = fmt.Errorf("%q", data)
		}
		return err
	})
	execute := func(id, args string, want uint32) {
		t.Helper()
		_, err := tasks.Exec(ctx, &tasksapi.ExecProcessRequest{
			ContainerID: "stays", ExecID: id, Stdout: "file://" + filepath.Join(dir, id),
			Spec: &anypb.Any{TypeUrl: harness.ResourcesURL + "Process", Value: []byte(`{"args":` + args + `,"cwd":"/"}`)},
		})
		harness.Must(t, err)
		_, err = tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: "stays", ExecID: id})
		harness.Must(t, err)
		resp, err := tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: "stays", ExecID: id})
		if err != nil || resp.ExitStatus != want {
			t.Errorf("exec: %v, %v", resp, err)
		}
		_, err = tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: "stays", ExecID: id})
		harness.Must(t, err)
	}
	execute("x1", `["/bin/sh","-c","echo in; exit 5"]`, 5)
	d.Restart()
	ctx, conn = fixture.GRPC(d)
	containers, tasks = containersapi.NewContainersClient(conn), tasksapi.NewTasksClient(conn)
	d.Eventually("the container is adopted", func() error {
		got, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "stays"})
		if err == nil && (got.Process.Status != tasktypes.Status_RUNNING || int(got.Process.Pid) != pid) {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
	execute("x2", `["/bin/true"]`, 0)
	d.Eventually("the output of exec is logged", func() error {
		data, err := os.ReadFile(filepath.Join(dir, "x1"))
		if err == nil && string(data) != "in\n" {
			err = fmt.Errorf("%q", data)
		}
		return err
	})
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "stays", Signal: uint32(unix.SIGTERM)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "stays", 9)
	fixture.DeleteTask(ctx, d, tasks, "stays")

	begin("killed", "sleep 1000")
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "killed", Signal: uint32(unix.SIGKILL), All: true})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "killed", 137)
	fixture.DeleteTask(ctx, d, tasks, "killed")
	for _, id := range []string{"ends", "stays", "killed"} {
		if _, err := containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id}); err != nil {
			t.Error(err)
		}
	}
	if sandbox := harness.Gone(pid)(); sandbox != nil {
		t.Error(errors.Join(errors.New("a process of gVisor is left"), sandbox))
	}
}
