package client

import (
	"context"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// Types of the JSON documents in the task API.
const (
	processType   = "types.containerd.io/opencontainers/runtime-spec/1/Process"
	resourcesType = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
)

// Process is a process of a container as reported by the task API: the init, or one that Exec
// added.
type Process struct {
	ContainerID string
	// ExecID is empty for the init.
	ExecID string
	Pid    uint32
	// Status is created, running, stopped, paused, pausing or unknown.
	Status string
	Stdio  Stdio
	// Exit is set when Status is stopped.
	Exit Exit
}

// KillRequest selects what to signal.
type KillRequest struct {
	// ExecID of the process; empty: the init.
	ExecID string
	Signal syscall.Signal
	// All signals every process of the container.
	All bool
}

// Exec declares an additional process for a running container; Start runs it, and Delete with its id
// removes it. An id in use is errdefs.ErrAlreadyExists.
func (c *Client) Exec(ctx context.Context, id, execID string, p *specs.Process, io Stdio) error {
	spec, err := jsonAny(processType, p)
	if err != nil {
		return err
	}
	return c.task(ctx, "add process to", id, "Exec", &wire.ExecProcessRequest{
		ContainerId: id, ExecId: execID, Spec: spec,
		Terminal: io.Terminal, Stdin: io.Stdin, Stdout: io.Stdout, Stderr: io.Stderr,
	})
}

// Start runs a created init (empty execID) or a process that Exec declared, and returns its pid.
func (c *Client) Start(ctx context.Context, id, execID string) (uint32, error) {
	resp, err := call[wire.StartResponse](ctx, c, wire.TasksService, "Start",
		&wire.StartRequest{ContainerId: id, ExecId: execID})
	if err != nil {
		return 0, about("start process in", id, err)
	}
	return resp.Pid, nil
}

// WaitProcess returns when a process that Exec declared has exited, or with empty execID, the init
// of a task; like Wait it survives restarts of the daemon.
func (c *Client) WaitProcess(ctx context.Context, id, execID string) (Exit, error) {
	var exit Exit
	err := c.persist(ctx, func() error {
		resp, err := call[wire.WaitResponse](ctx, c, wire.TasksService, "Wait",
			&wire.WaitRequest{ContainerId: id, ExecId: execID})
		if err == nil {
			exit = exitFrom(resp.ExitStatus, resp.ExitedAt)
		}
		return err
	})
	return exit, about("wait for process in", id, err)
}

// State returns the state of the init (empty execID) or of an exec'd process.
func (c *Client) State(ctx context.Context, id, execID string) (Process, error) {
	resp, err := query[wire.GetResponse](ctx, c, wire.TasksService, "Get",
		&wire.GetRequest{ContainerId: id, ExecId: execID})
	if err != nil {
		return Process{}, about("read state of", id, err)
	}
	m := resp.Process
	if m == nil {
		m = &wire.Process{}
	}
	return Process{
		ContainerID: id, ExecID: execID, Pid: m.Pid, Status: statusName(m.Status),
		Stdio: Stdio{Stdin: m.Stdin, Stdout: m.Stdout, Stderr: m.Stderr, Terminal: m.Terminal},
		Exit:  exitFrom(m.ExitStatus, m.ExitedAt),
	}, nil
}

func statusName(s types.Status) string {
	switch s {
	case types.Status_CREATED:
		return "created"
	case types.Status_RUNNING:
		return "running"
	case types.Status_STOPPED:
		return "stopped"
	case types.Status_PAUSED:
		return "paused"
	case types.Status_PAUSING:
		return "pausing"
	default:
		return "unknown"
	}
}

// Kill sends a signal. A process that has ended is errdefs.ErrNotFound.
func (c *Client) Kill(ctx context.Context, id string, r KillRequest) error {
	return c.task(ctx, "signal", id, "Kill", &wire.KillRequest{
		ContainerId: id, ExecId: r.ExecID, Signal: uint32(r.Signal), All: r.All,
	})
}

// Pause freezes the container's processes.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.task(ctx, "pause", id, "Pause", &wire.PauseTaskRequest{ContainerId: id})
}

// Resume resumes them.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.task(ctx, "resume", id, "Resume", &wire.ResumeTaskRequest{ContainerId: id})
}

// ResizePty sets the size of a process's terminal, in cells.
func (c *Client) ResizePty(ctx context.Context, id, execID string, width, height uint32) error {
	return c.task(ctx, "resize terminal of", id, "ResizePty", &wire.ResizePtyRequest{
		ContainerId: id, ExecId: execID, Width: width, Height: height,
	})
}

// CloseIO makes a process read the end of its stdin once its writers have closed it.
func (c *Client) CloseIO(ctx context.Context, id, execID string) error {
	return c.task(ctx, "close stdin of", id, "CloseIO", &wire.CloseIORequest{
		ContainerId: id, ExecId: execID, Stdin: true,
	})
}

// Pids lists every process of the container.
func (c *Client) Pids(ctx context.Context, id string) ([]uint32, error) {
	resp, err := query[wire.ListPidsResponse](ctx, c, wire.TasksService, "ListPids",
		&wire.ListPidsRequest{ContainerId: id})
	if err != nil {
		return nil, about("list processes of", id, err)
	}
	out := make([]uint32, 0, len(resp.Processes))
	for _, p := range resp.Processes {
		out = append(out, p.Pid)
	}
	return out, nil
}

// Update changes the resource limits of a running container.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources, annotations map[string]string) error {
	res, err := jsonAny(resourcesType, r)
	if err != nil {
		return err
	}
	return c.task(ctx, "update", id, "Update", &wire.UpdateTaskRequest{
		ContainerId: id, Resources: res, Annotations: annotations,
	})
}

// Delete deletes a stopped task (empty execID), without its container, or a stopped exec'd process,
// and returns its exit.
func (c *Client) Delete(ctx context.Context, id, execID string) (Exit, error) {
	method, req := "Delete", rpc.Message(&wire.DeleteTaskRequest{ContainerId: id})
	if execID != "" {
		method, req = "DeleteProcess", &wire.DeleteProcessRequest{ContainerId: id, ExecId: execID}
	}
	resp, err := call[wire.DeleteResponse](ctx, c, wire.TasksService, method, req)
	if err != nil {
		return Exit{}, about("delete process of", id, err)
	}
	return exitFrom(resp.ExitStatus, resp.ExitedAt), nil
}

// task makes a call of the task service whose answer is empty.
func (c *Client) task(ctx context.Context, verb, id, method string, req rpc.Message) error {
	_, err := call[types.Empty](ctx, c, wire.TasksService, method, req)
	return about(verb, id, err)
}
