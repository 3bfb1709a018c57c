package api

import (
	"context"
	"fmt"
	"os/exec"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// lookAtSandbox is look for sandboxes: one service shows their records, another their processes.
func (r *reader) lookAtSandbox(ctx context.Context, msg any) (string, error) {
	controller := sandboxapi.NewControllerClient(r.conn)
	state := func(id, want string) error {
		resp, err := controller.Status(ctx, &sandboxapi.ControllerStatusRequest{SandboxID: id})
		if err == nil && resp.State != want {
			err = fmt.Errorf("state %s, want %s", resp.State, want)
		}
		return err
	}
	switch e := msg.(type) {
	case *apievents.SandboxCreate:
		_, err := sandboxapi.NewStoreClient(r.conn).Get(ctx, &sandboxapi.StoreGetRequest{SandboxID: e.SandboxID})
		return e.SandboxID, err
	case *apievents.SandboxStart:
		return e.SandboxID, state(e.SandboxID, "SANDBOX_READY")
	case *apievents.SandboxExit:
		return e.SandboxID, state(e.SandboxID, "SANDBOX_NOTREADY")
	default:
		return fmt.Sprintf("%T", e), fmt.Errorf("unexpected event type")
	}
}

func TestSandboxEvents_FollowTheState(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	r := readEvents(ctx, t, conn)
	_, conn = fixture.GRPC(d) // separate from the reader's
	store, controller, shim := sandboxapi.NewStoreClient(conn), sandboxapi.NewControllerClient(conn), harness.PodShim(t)
	const rounds = 25
	for i := range rounds {
		id := fmt.Sprint("pod-", i)
		box := &types.Sandbox{SandboxID: id, Runtime: &types.Sandbox_Runtime{Name: shim}}
		_, err := store.Create(ctx, &sandboxapi.StoreCreateRequest{Sandbox: box})
		harness.Must(t, err)
		r.await("/sandboxes/create", id)
		_, err = controller.Create(ctx, &sandboxapi.ControllerCreateRequest{SandboxID: id, Sandbox: box})
		harness.Must(t, err)
		_, err = controller.Start(ctx, &sandboxapi.ControllerStartRequest{SandboxID: id})
		harness.Must(t, err)
		r.await("/sandboxes/start", id)
		_, err = controller.Stop(ctx, &sandboxapi.ControllerStopRequest{SandboxID: id})
		harness.Must(t, err)
		r.await("/sandboxes/exit", id)
		_, err = controller.Shutdown(ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: id})
		harness.Must(t, err)
		_, err = store.Delete(ctx, &sandboxapi.StoreDeleteRequest{SandboxID: id})
		harness.Must(t, err)
	}
}

// TestOOMEvent_FollowsTheState checks on each event whether the container is shown as one that ran out of memory.
func TestOOMEvent_FollowsTheState(t *testing.T) {
	t.Parallel()
	foreign, err := exec.LookPath("containerd-shim-runc-v2")
	harness.Must(t, err)
	d := harness.Start(t)
	d.Busybox()
	ctx, conn := fixture.GRPC(d)
	r := readEvents(ctx, t, conn)
	r.oomKilled = func(id string) bool { return d.All()[id].OOMKilled }
	_, driver := fixture.GRPC(d) // separate from the reader's
	memory := int64(16 << 20)
	for name, runtime := range map[string]string{"own": "", "foreign": foreign} {
		for i := range 10 {
			id := fmt.Sprint(name, "-", i)
			// A foreign shim watches the memory from the start of the container on: the process waits for that.
			dir, open := harness.Gate(t, 1)
			spec := fixture.Gated(t, dir, "read x < /go/gate; dd if=/dev/zero of=/dev/null bs=64M count=1; exec sleep 1000")
			spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
			_, tasks := fixture.CreateTask(d, id, spec, runtime)
			fixture.StartTask(ctx, d, tasks, id)
			open()
			r.await("/tasks/oom", id)
			r.endTask(ctx, tasks, driver, id)
		}
	}
}
