package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// Start runs the created init.
func (t *Task) Start(ctx context.Context) (uint32, error) {
	c, err := t.connection(ctx)
	if err != nil {
		return 0, err
	}
	leave, err := t.m.gates.create.Enter(ctx)
	if err != nil {
		return 0, fmt.Errorf("start task %s: %w", t.id, err)
	}
	defer leave()
	if err := t.start(ctx, c); err != nil {
		if t.cutOff(err) {
			return 0, t.errRemoved()
		}
		return 0, reason.Operation("start task "+t.id, err)
	}
	return t.Info().Pid, nil
}

func (t *Task) start(ctx context.Context, c *conn) error {
	resp, err := call[task.StartResponse](ctx, c, runtimeCall, "Start", &task.StartRequest{Id: t.id})
	if err != nil {
		return err
	}
	t.setRunning(resp.Pid)
	return nil
}

// setRunning marks the init as running, unless its exit is known already.
func (t *Task) setRunning(pid uint32) {
	t.update(func(i *Info) {
		i.Pid = pid
		if i.StartedAt.IsZero() {
			i.StartedAt = time.Now().UTC()
		}
		if i.Status != types.Status_STOPPED {
			i.Status = types.Status_RUNNING
		}
	})
}

// ask calls the shim and names the task in an error. A call that is cut off because the task is deleted returns
// errdefs.ErrNotFound.
func ask[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, t *Task, limit time.Duration, method string, req rpc.Message,
) (*Resp, error) {
	c, err := t.connection(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := call[Resp, PResp](ctx, c, limit, method, req)
	if t.cutOff(err) {
		return nil, t.errRemoved()
	}
	if err != nil {
		return nil, reason.Operation("task "+t.id, err)
	}
	return resp, nil
}

// askControl is ask for calls that run the OCI runtime on a container; a bounded number of them
// runs at the same time.
func askControl[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, t *Task, method string, req rpc.Message,
) (*Resp, error) {
	leave, err := t.m.gates.control.Enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", t.id, err)
	}
	defer leave()
	return ask[Resp, PResp](ctx, t, runtimeCall, method, req)
}

// cutOff reports whether a call failed because the shim exits with its task.
func (t *Task) cutOff(err error) bool { return errdefs.IsUnavailable(err) && t.isRemoving() }

// Exec declares an additional process.
func (t *Task) Exec(ctx context.Context, req *task.ExecProcessRequest) error {
	req.Id = t.id
	_, err := ask[types.Empty](ctx, t, runtimeCall, "Exec", req)
	return err
}

// StartExec runs a declared process and returns its pid.
func (t *Task) StartExec(ctx context.Context, execID string) (uint32, error) {
	leave, err := t.m.gates.exec.Enter(ctx)
	if err != nil {
		return 0, fmt.Errorf("start process %s: %w", execID, err)
	}
	defer leave()
	resp, err := ask[task.StartResponse](ctx, t, runtimeCall, "Start", &task.StartRequest{Id: t.id, ExecId: execID})
	if err != nil {
		return 0, err
	}
	return resp.Pid, nil
}

// DeleteExec frees a stopped exec'd process and returns its exit.
func (t *Task) DeleteExec(ctx context.Context, execID string) (Exit, error) {
	resp, err := ask[task.DeleteResponse](ctx, t, runtimeCall, "Delete", &task.DeleteRequest{Id: t.id, ExecId: execID})
	if err != nil {
		return Exit{}, err
	}
	return Exit{Pid: resp.Pid, Status: resp.ExitStatus, At: resp.ExitedAt.Time()}, nil
}

// State returns the state of a process. For the init of a task whose shim pushes its events it is
// read from the Manager's view.
func (t *Task) State(ctx context.Context, execID string) (*task.StateResponse, error) {
	t.mu.Lock()
	known := execID == "" && (t.conn != nil && t.conn.native || t.info.Link != Ready || t.info.Status == types.Status_STOPPED)
	t.mu.Unlock()
	if known {
		return t.knownState(), nil
	}
	return ask[task.StateResponse](ctx, t, quickCall, "State", &task.StateRequest{Id: t.id, ExecId: execID})
}

func (t *Task) knownState() *task.StateResponse {
	i := t.Info()
	return &task.StateResponse{
		Id: t.id, Bundle: i.Bundle, Pid: i.Pid, Status: i.Status,
		Stdin: i.Stdin, Stdout: i.Stdout, Stderr: i.Stderr, Terminal: i.Terminal,
		ExitStatus: i.Exit.Status, ExitedAt: types.FromTime(i.Exit.At),
	}
}

// Wait returns the exit of the init or of an exec'd process once it is known.
func (t *Task) Wait(ctx context.Context, execID string) (Exit, error) {
	if execID == "" {
		select {
		case <-t.exited:
			return t.Info().Exit, nil
		case <-ctx.Done():
			return Exit{}, ctx.Err()
		case <-t.m.ctx.Done():
			return Exit{}, fmt.Errorf("wait for task %s: daemon is stopping: %w", t.id, reason.DaemonStopping)
		}
	}
	resp, err := ask[task.WaitResponse](ctx, t, 0, "Wait", &task.WaitRequest{Id: t.id, ExecId: execID})
	if err != nil {
		return Exit{}, err
	}
	return Exit{Status: resp.ExitStatus, At: resp.ExitedAt.Time()}, nil
}

// Kill signals the init, an exec'd process, or with all every process.
func (t *Task) Kill(ctx context.Context, execID string, signal uint32, all bool) error {
	_, err := askControl[types.Empty](ctx, t, "Kill", &task.KillRequest{Id: t.id, ExecId: execID, Signal: signal, All: all})
	return err
}

// Pids lists the processes of the container.
func (t *Task) Pids(ctx context.Context) ([]*types.ProcessInfo, error) {
	resp, err := ask[task.PidsResponse](ctx, t, runtimeCall, "Pids", &task.PidsRequest{Id: t.id})
	if err != nil {
		return nil, err
	}
	return resp.Processes, nil
}

// Pause freezes the container.
func (t *Task) Pause(ctx context.Context) error {
	if _, err := askControl[types.Empty](ctx, t, "Pause", &task.PauseRequest{Id: t.id}); err != nil {
		return err
	}
	t.setPaused(true)
	return nil
}

// Resume thaws the container.
func (t *Task) Resume(ctx context.Context) error {
	if _, err := askControl[types.Empty](ctx, t, "Resume", &task.ResumeRequest{Id: t.id}); err != nil {
		return err
	}
	t.setPaused(false)
	return nil
}

func (t *Task) setPaused(paused bool) {
	t.update(func(i *Info) {
		switch {
		case paused && i.Status == types.Status_RUNNING:
			i.Status = types.Status_PAUSED
		case !paused && (i.Status == types.Status_PAUSED || i.Status == types.Status_PAUSING):
			i.Status = types.Status_RUNNING
		}
	})
}

// Checkpoint writes the container's processes to a directory.
func (t *Task) Checkpoint(ctx context.Context, path string, options *types.Any) error {
	_, err := ask[types.Empty](ctx, t, runtimeCall, "Checkpoint", &task.CheckpointTaskRequest{Id: t.id, Path: path, Options: options})
	return err
}

// Update changes resource limits; resources is the OCI linux.resources object.
func (t *Task) Update(ctx context.Context, resources *types.Any, annotations map[string]string) error {
	_, err := askControl[types.Empty](ctx, t, "Update", &task.UpdateTaskRequest{Id: t.id, Resources: resources, Annotations: annotations})
	return err
}

// Stats reads the container's cgroup.
func (t *Task) Stats(ctx context.Context) (*types.Any, error) {
	resp, err := ask[task.StatsResponse](ctx, t, quickCall, "Stats", &task.StatsRequest{Id: t.id})
	if err != nil {
		return nil, err
	}
	return resp.Stats, nil
}

// ResizePty sets the size of a process's terminal.
func (t *Task) ResizePty(ctx context.Context, execID string, width, height uint32) error {
	_, err := ask[types.Empty](ctx, t, quickCall, "ResizePty", &task.ResizePtyRequest{Id: t.id, ExecId: execID, Width: width, Height: height})
	return err
}

// CloseIO closes the shim's side of a process's stdin.
func (t *Task) CloseIO(ctx context.Context, execID string) error {
	_, err := ask[types.Empty](ctx, t, quickCall, "CloseIO", &task.CloseIORequest{Id: t.id, ExecId: execID, Stdin: true})
	return err
}
