package runtime

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// End kills all processes of the container and waits for the exit of the init. A task that has ended
// is not an error.
func (t *Task) End(ctx context.Context) error {
	c, err := t.connection(ctx)
	if err != nil {
		return err
	}
	leave, err := t.m.gates.control.Enter(ctx)
	if err != nil {
		return fmt.Errorf("kill task %s: %w", t.id, err)
	}
	err = t.killAll(ctx, c)
	leave()
	if t.cutOff(err) {
		return t.errRemoved()
	}
	if err != nil && !errdefs.IsNotFound(err) { // it may have ended concurrently
		return reason.Operation("task "+t.id, err)
	}
	_, err = t.Wait(ctx, "")
	return err
}

// killAll kills all processes of the container and resumes it if it may be paused: a frozen process
// takes no signal.
func (t *Task) killAll(ctx context.Context, c *conn) error {
	_, err := call[types.Empty](ctx, c, runtimeCall, "Kill", &task.KillRequest{Id: t.id, Signal: uint32(unix.SIGKILL), All: true})
	if err != nil {
		return err
	}
	switch t.Info().Status {
	case types.Status_RUNNING, types.Status_STOPPED:
		return nil
	}
	// The kill of some OCI runtimes resumes the container itself, or it was never paused: an error
	// here shows in what follows.
	_, _ = call[types.Empty](ctx, c, runtimeCall, "Resume", &task.ResumeRequest{Id: t.id})
	return nil
}

// dismantle has the shim itself kill and delete the container, and exit. A container that is being
// created is waited for: Delete waits, and then there is something to kill.
func (t *Task) dismantle(ctx context.Context, c *conn) error {
	for {
		err := t.killAll(ctx, c)
		if err == nil {
			_, err = call[task.WaitResponse](ctx, c, runtimeCall, "Wait", &task.WaitRequest{Id: t.id})
		}
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return err
		}
		_, err = call[task.DeleteResponse](ctx, c, runtimeCall, "Delete", &task.DeleteRequest{Id: t.id})
		if err == nil || errdefs.IsNotFound(err) {
			break
		}
		if !errdefs.IsFailedPrecondition(err) {
			return err
		}
	}
	if c.joined {
		return nil
	}
	return t.askToExit(ctx, c)
}
