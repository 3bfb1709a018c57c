package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// podShim is a shim under a name that the daemon does not recognise as its own. It holds a sandbox with its tasks.
func podShim(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(binaries, "containerd-shim-cleat-v2"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "containerd-shim-pods-v2")
	must(t, os.WriteFile(path, data, 0o755))
	return path
}

// pod is a daemon with a running sandbox that a foreign shim holds.
type pod struct {
	*Daemon
	ctx        context.Context
	controller sandboxapi.ControllerClient
	tasks      tasksapi.TasksClient
	shim       int
}

func startPod(t *testing.T) *pod {
	t.Helper()
	d := Start(t)
	p := &pod{Daemon: d}
	p.connect()
	runtime := podShim(t)
	_, err := p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{
		SandboxID: "pod", Sandbox: &types.Sandbox{SandboxID: "pod", Runtime: &types.Sandbox_Runtime{Name: runtime}},
	})
	must(t, err)
	t.Cleanup(func() { // before the daemon's leak check
		if t.Failed() {
			_, _ = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
		}
	})
	started, err := p.controller.Start(p.ctx, &sandboxapi.ControllerStartRequest{SandboxID: "pod"})
	must(t, err)
	if !strings.HasPrefix(started.Address, "ttrpc+unix://") || started.Pid == 0 {
		t.Fatalf("started %v", started)
	}
	p.shim = int(started.Pid)
	return p
}

func (p *pod) connect() {
	p.t.Helper()
	ctx, conn := p.grpc()
	p.ctx, p.controller, p.tasks = ctx, sandboxapi.NewControllerClient(conn), tasksapi.NewTasksClient(conn)
}

// member creates a container of the sandbox with its task.
func (p *pod) member(id string, args ...string) {
	p.t.Helper()
	_, conn := p.grpc()
	_, err := containersapi.NewContainersClient(conn).Create(p.ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Sandbox: "pod", Spec: apiSpec(p.t, busyboxSpec(p.t, args...)), Runtime: &containersapi.Container_Runtime{Name: "io.containerd.cleat.v2"},
	}})
	must(p.t, err)
	_, err = p.tasks.Create(p.ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: p.rootfs()})
	must(p.t, err)
}

func (p *pod) state() string {
	p.t.Helper()
	st, err := p.controller.Status(p.ctx, &sandboxapi.ControllerStatusRequest{SandboxID: "pod"})
	must(p.t, err)
	return st.State
}

// TestSandbox_HoldsTasks runs two tasks in the shim of their sandbox, over a restart of the daemon. The sandbox
// outlives both.
func TestSandbox_HoldsTasks(t *testing.T) {
	p := startPod(t)
	p.member("a", "sleep", "1000")
	p.member("b", "sh", "-c", "exit 4")
	pid := p.startTask(p.ctx, p.tasks, "a")
	if got := p.shimProcesses(); len(got) != 1 || got[0] != p.shim {
		t.Errorf("shims %v, want only that of the sandbox, %d", got, p.shim)
	}
	p.Restart()
	p.connect()
	if !alive(pid) || p.state() != "SANDBOX_READY" {
		t.Errorf("after a restart: task alive %v, sandbox %s", alive(pid), p.state())
	}
	p.startTask(p.ctx, p.tasks, "b")
	p.waitTask(p.ctx, p.tasks, "b", 4)
	p.deleteTask(p.ctx, p.tasks, "b")
	_, err := p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "container a") {
		t.Errorf("shutdown with a task: %v", err)
	}
	_, err = p.tasks.Kill(p.ctx, &tasksapi.KillRequest{ContainerID: "a", Signal: uint32(unix.SIGKILL), All: true})
	must(t, err)
	p.waitTask(p.ctx, p.tasks, "a", 137)
	p.deleteTask(p.ctx, p.tasks, "a")
	if !alive(p.shim) || p.state() != "SANDBOX_READY" {
		t.Errorf("without tasks: shim alive %v, sandbox %s", alive(p.shim), p.state())
	}
	_, err = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	must(t, err)
	p.Eventually("the sandbox's shim exits", gone(p.shim))
}

// TestSandbox_ShimDies_TasksEnd checks the reported state of the sandbox and of its task.
func TestSandbox_ShimDies_TasksEnd(t *testing.T) {
	p := startPod(t)
	p.member("a", "sleep", "1000")
	pid := p.startTask(p.ctx, p.tasks, "a")
	killPid(t, p.shim)
	p.waitTask(p.ctx, p.tasks, "a", 137) // according to the shim's delete verb
	if got := p.state(); got != "SANDBOX_NOTREADY" {
		t.Errorf("state %s", got)
	}
	exit, err := p.controller.Wait(p.ctx, &sandboxapi.ControllerWaitRequest{SandboxID: "pod"})
	must(t, err)
	if exit.ExitStatus != 255 {
		t.Errorf("exit code %d of the sandbox", exit.ExitStatus)
	}
	if alive(pid) {
		t.Error("the task is still running without a record")
	}
	_, err = p.tasks.Delete(p.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"})
	must(t, err)
	_, err = p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod"})
	must(t, err)
}

// TestSandbox_CreationFails_LeavesNothing uses Debian's shim of runc, which does not support sandboxes.
func TestSandbox_CreationFails_LeavesNothing(t *testing.T) {
	d := Start(t)
	ctx, conn := d.grpc()
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
				if len(d.shimProcesses()) > 0 {
					return errors.New("the shim is alive")
				}
				return nil
			})
		})
	}
}
