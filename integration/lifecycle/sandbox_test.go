package lifecycle

import (
	"context"
	"errors"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// pod is a daemon with a running sandbox that a foreign shim holds.
type pod struct {
	*harness.Daemon
	ctx        context.Context
	controller sandboxapi.ControllerClient
	tasks      tasksapi.TasksClient
	shim       int
}

func startPod(t *testing.T) *pod {
	t.Helper()
	d := harness.Start(t)
	p := &pod{Daemon: d}
	p.connect()
	runtime := harness.PodShim(t)
	_, err := p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{
		SandboxID: "pod", Sandbox: &types.Sandbox{SandboxID: "pod", Runtime: &types.Sandbox_Runtime{Name: runtime}},
	})
	harness.Must(t, err)
	t.Cleanup(func() { // before the daemon's leak check
		if t.Failed() {
			_, _ = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
		}
	})
	started, err := p.controller.Start(p.ctx, &sandboxapi.ControllerStartRequest{SandboxID: "pod"})
	harness.Must(t, err)
	if !strings.HasPrefix(started.Address, "ttrpc+unix://") || started.Pid == 0 {
		t.Fatalf("started %v", started)
	}
	p.shim = int(started.Pid)
	return p
}

func (p *pod) connect() {
	p.T.Helper()
	ctx, conn := fixture.GRPC(p.Daemon)
	p.ctx, p.controller, p.tasks = ctx, sandboxapi.NewControllerClient(conn), tasksapi.NewTasksClient(conn)
}

// member creates a container of the sandbox with its task.
func (p *pod) member(id string, args ...string) {
	p.T.Helper()
	_, conn := fixture.GRPC(p.Daemon)
	_, err := containersapi.NewContainersClient(conn).Create(p.ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Sandbox: "pod", Spec: fixture.APISpec(p.T, fixture.BusyboxSpec(p.T, args...)), Runtime: &containersapi.Container_Runtime{Name: "io.containerd.cleat.v2"},
	}})
	harness.Must(p.T, err)
	_, err = p.tasks.Create(p.ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(p.Daemon)})
	harness.Must(p.T, err)
}

func (p *pod) state() string {
	p.T.Helper()
	st, err := p.controller.Status(p.ctx, &sandboxapi.ControllerStatusRequest{SandboxID: "pod"})
	harness.Must(p.T, err)
	return st.State
}

// TestSandbox_HoldsTasks runs two tasks in the shim of their sandbox, over a restart of the daemon. The sandbox
// outlives both.
func TestSandbox_HoldsTasks(t *testing.T) {
	t.Parallel()
	p := startPod(t)
	p.member("a", "sleep", "1000")
	p.member("b", "sh", "-c", "exit 4")
	pid := fixture.StartTask(p.ctx, p.Daemon, p.tasks, "a")
	if got := p.ShimProcesses(); len(got) != 1 || got[0] != p.shim {
		t.Errorf("shims %v, want only that of the sandbox, %d", got, p.shim)
	}
	p.Restart()
	p.connect()
	if !harness.Alive(pid) || p.state() != "SANDBOX_READY" {
		t.Errorf("after a restart: task alive %v, sandbox %s", harness.Alive(pid), p.state())
	}
	fixture.StartTask(p.ctx, p.Daemon, p.tasks, "b")
	fixture.WaitTask(p.ctx, p.Daemon, p.tasks, "b", 4)
	fixture.DeleteTask(p.ctx, p.Daemon, p.tasks, "b")
	_, err := p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "container a") {
		t.Errorf("shutdown with a task: %v", err)
	}
	_, err = p.tasks.Kill(p.ctx, &tasksapi.KillRequest{ContainerID: "a", Signal: uint32(unix.SIGKILL), All: true})
	harness.Must(t, err)
	fixture.WaitTask(p.ctx, p.Daemon, p.tasks, "a", 137)
	fixture.DeleteTask(p.ctx, p.Daemon, p.tasks, "a")
	if !harness.Alive(p.shim) || p.state() != "SANDBOX_READY" {
		t.Errorf("without tasks: shim alive %v, sandbox %s", harness.Alive(p.shim), p.state())
	}
	_, err = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	harness.Must(t, err)
	p.Eventually("the sandbox's shim exits", harness.Gone(p.shim))
}

// TestSandbox_ShimDies_TasksEnd checks the reported state of the sandbox and of its task.
func TestSandbox_ShimDies_TasksEnd(t *testing.T) {
	t.Parallel()
	p := startPod(t)
	p.member("a", "sleep", "1000")
	pid := fixture.StartTask(p.ctx, p.Daemon, p.tasks, "a")
	harness.KillPid(t, p.shim)
	fixture.WaitTask(p.ctx, p.Daemon, p.tasks, "a", 137) // according to the shim's delete verb
	if got := p.state(); got != "SANDBOX_NOTREADY" {
		t.Errorf("state %s", got)
	}
	exit, err := p.controller.Wait(p.ctx, &sandboxapi.ControllerWaitRequest{SandboxID: "pod"})
	harness.Must(t, err)
	if exit.ExitStatus != 255 {
		t.Errorf("exit code %d of the sandbox", exit.ExitStatus)
	}
	if harness.Alive(pid) {
		t.Error("the task is still running without a record")
	}
	_, err = p.tasks.Delete(p.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"})
	harness.Must(t, err)
	_, err = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	harness.Must(t, err)
}

// TestSandbox_CreationFails_LeavesNothing uses Debian's shim of runc, which does not support sandboxes.
func TestSandbox_CreationFails_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	controller := sandboxapi.NewControllerClient(conn)
	for name, req := range map[string]*sandboxapi.ControllerCreateRequest{
		"without the API":    {SandboxID: "x", Sandbox: &types.Sandbox{SandboxID: "x", Runtime: &types.Sandbox_Runtime{Name: "/usr/bin/containerd-shim-runc-v2"}}},
		"another id":         {SandboxID: "x", Sandbox: &types.Sandbox{SandboxID: "y"}},
		"no record":          {SandboxID: "x"},
		"another controller": {SandboxID: "x", Sandboxer: "podsandbox", Sandbox: &types.Sandbox{SandboxID: "x"}},
		"a root file system": {SandboxID: "x", Sandbox: &types.Sandbox{SandboxID: "x"}, Rootfs: []*types.Mount{{Type: "tmpfs", Source: "tmpfs"}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := controller.Create(ctx, req)
			want := map[string]codes.Code{
				"without the API": codes.Unimplemented, "another id": codes.InvalidArgument, "no record": codes.NotFound,
				"another controller": codes.NotFound, "a root file system": codes.InvalidArgument,
			}[name]
			if status.Code(err) != want {
				t.Errorf("%v, want %v", err, want)
			}
			if _, err := controller.Status(ctx, &sandboxapi.ControllerStatusRequest{SandboxID: "x"}); status.Code(err) != codes.NotFound {
				t.Errorf("the sandbox exists: %v", err)
			}
			d.Eventually("the shim exits", func() error {
				if len(d.ShimProcesses()) > 0 {
					return errors.New("the shim is alive")
				}
				return nil
			})
		})
	}
}
