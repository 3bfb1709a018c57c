package integration

import (
	"context"
	"fmt"
	"os/exec"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	d := Start(t)
	ctx, conn := d.grpc()
	r := readEvents(ctx, t, conn)
	_, conn = d.grpc() // separate from the reader's
	store, controller, shim := sandboxapi.NewStoreClient(conn), sandboxapi.NewControllerClient(conn), podShim(t)
	const rounds = 25
	for i := range rounds {
		id := fmt.Sprint("pod-", i)
		box := &types.Sandbox{SandboxID: id, Runtime: &types.Sandbox_Runtime{Name: shim}}
		_, err := store.Create(ctx, &sandboxapi.StoreCreateRequest{Sandbox: box})
		must(t, err)
		r.await("/sandboxes/create", id)
		_, err = controller.Create(ctx, &sandboxapi.ControllerCreateRequest{SandboxID: id, Sandbox: box})
		must(t, err)
		_, err = controller.Start(ctx, &sandboxapi.ControllerStartRequest{SandboxID: id})
		must(t, err)
		r.await("/sandboxes/start", id)
		_, err = controller.Stop(ctx, &sandboxapi.ControllerStopRequest{SandboxID: id})
		must(t, err)
		r.await("/sandboxes/exit", id)
		_, err = controller.Shutdown(ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: id})
		must(t, err)
		_, err = store.Delete(ctx, &sandboxapi.StoreDeleteRequest{SandboxID: id})
		must(t, err)
	}
}

// TestOOMEvent_FollowsTheState checks on each event whether the container is shown as one that ran out of memory.
func TestOOMEvent_FollowsTheState(t *testing.T) {
	foreign, err := exec.LookPath("containerd-shim-runc-v2")
	must(t, err)
	d := Start(t)
	d.Busybox()
	ctx, conn := d.grpc()
	r := readEvents(ctx, t, conn)
	r.oomKilled = func(id string) bool { return d.all()[id].OOMKilled }
	_, driver := d.grpc() // separate from the reader's
	memory := int64(16 << 20)
	for name, runtime := range map[string]string{"own": "", "foreign": foreign} {
		for i := range 10 {
			id := fmt.Sprint(name, "-", i)
			// A foreign shim watches the memory from the start of the container on: the process waits for that.
			dir, open := gate(t, 1)
			spec := gated(t, dir, "read x < /go/gate; dd if=/dev/zero of=/dev/null bs=64M count=1; exec sleep 1000")
			spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
			_, tasks := d.createTask(id, spec, runtime)
			d.startTask(ctx, tasks, id)
			open()
			r.await("/tasks/oom", id)
			r.endTask(ctx, tasks, driver, id)
		}
	}
}
