package faults

import (
	"context"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

// killTask kills a task that has ended, which must fail with "not found".
func killTask(ctx context.Context, d *harness.Daemon, tasks tasksapi.TasksClient, id string) {
	d.T.Helper()
	_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	if !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		d.T.Errorf("kill of %s, which has ended: %v, want not found", id, err)
	}
}
