package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// Kill signals a process, or all of the container. One that has exited is errdefs.ErrNotFound. It
// waits for no other operation.
func (s *Server) Kill(ctx context.Context, req *task.KillRequest) (*types.Empty, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	if req.Signal == 0 || req.Signal > 64 {
		return nil, fmt.Errorf("signal %d: %w", req.Signal, errdefs.ErrInvalidArgument)
	}
	st, child := p.snapshot()
	switch {
	case st == stopped || st == deleted:
		return nil, fmt.Errorf("kill %s: process already finished: %w", p.id(), errdefs.ErrNotFound)
	case child == nil:
		return nil, fmt.Errorf("kill %s: process is not started: %w", p.id(), errdefs.ErrFailedPrecondition)
	case p.execID != "":
		err = signalChild(child, syscall.Signal(req.Signal))
	default:
		err = s.killInit(ctx, p, child, req)
	}
	if err != nil {
		return nil, fmt.Errorf("kill %s: %w", p.id(), err)
	}
	return &types.Empty{}, nil
}

func signalChild(child *reaper.Child, sig syscall.Signal) error {
	err := child.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	return err
}

// killInit leaves it to the OCI runtime, for which the init may be more than a process.
func (s *Server) killInit(ctx context.Context, p *process, child *reaper.Child, req *task.KillRequest) error {
	args := []string{"kill"}
	if req.All {
		args = append(args, "--all")
	}
	err := p.container.runtime.run(ctx, command{args: append(args, p.container.id, strconv.Itoa(int(req.Signal)))})
	if err == nil {
		return nil
	}
	select {
	case <-child.Done():
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	default:
		return err
	}
}

// Pause freezes the container.
func (s *Server) Pause(ctx context.Context, req *task.PauseRequest) (*types.Empty, error) {
	p, err := s.process(req.Id, "")
	if err != nil {
		return nil, err
	}
	release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := p.advance(evPause); err != nil {
		return nil, fmt.Errorf("%s: %w", p.id(), err)
	}
	if err := p.container.runtime.run(ctx, command{args: []string{"pause", req.Id}}); err != nil {
		return nil, errors.Join(fmt.Errorf("pause %s: %w", req.Id, err), p.advance(evPauseFailed))
	}
	return &types.Empty{}, s.announce(p, evPaused)
}

// Resume thaws it.
func (s *Server) Resume(ctx context.Context, req *task.ResumeRequest) (*types.Empty, error) {
	p, err := s.process(req.Id, "")
	if err != nil {
		return nil, err
	}
	release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if st, _ := p.snapshot(); st != paused && st != running {
		return nil, fmt.Errorf("resume %s: it is %s: %w", req.Id, st, errdefs.ErrFailedPrecondition)
	}
	if err := p.container.runtime.run(ctx, command{args: []string{"resume", req.Id}}); err != nil {
		return nil, fmt.Errorf("resume %s: %w", req.Id, err)
	}
	return &types.Empty{}, s.announce(p, evResumed)
}

// announce steps and tells what the step asks for.
func (s *Server) announce(p *process, e event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	eff, err := p.stepLocked(e)
	if err != nil {
		return err
	}
	switch eff {
	case tellPaused:
		s.tell("paused", "TaskPaused", &events.TaskPaused{ContainerId: p.container.id})
	case tellResumed:
		s.tell("resumed", "TaskResumed", &events.TaskResumed{ContainerId: p.container.id})
	default:
	}
	return nil
}

// Update changes resource limits.
func (s *Server) Update(ctx context.Context, req *task.UpdateTaskRequest) (*types.Empty, error) {
	c, err := s.container(req.Id)
	if err != nil {
		return nil, err
	}
	if req.Resources == nil || !json.Valid(req.Resources.Value) {
		return nil, fmt.Errorf("update %s: resources are no JSON: %w", c.id, errdefs.ErrInvalidArgument)
	}
	file := c.runtime.temp("update", ".json")
	if err := os.WriteFile(file, req.Resources.Value, 0o600); err != nil {
		return nil, fmt.Errorf("write resources: %w", err)
	}
	defer func() { _ = os.Remove(file) }() // the bundle is removed in the end
	if err := c.runtime.run(ctx, command{args: []string{"update", "--resources", file, c.id}}); err != nil {
		return nil, fmt.Errorf("update %s: %w", c.id, err)
	}
	return &types.Empty{}, nil
}

// Pids lists the processes in the container's cgroup.
func (s *Server) Pids(_ context.Context, req *task.PidsRequest) (*task.PidsResponse, error) {
	c, err := s.container(req.Id)
	if err != nil {
		return nil, err
	}
	if st, child := c.init.snapshot(); child == nil || st == stopped || st == deleted {
		return nil, fmt.Errorf("processes of %s: it is %s: %w", c.id, st, errdefs.ErrFailedPrecondition)
	}
	c.mu.Lock()
	cg := c.cgroup
	c.mu.Unlock()
	pids, err := cg.pids()
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", c.id, err)
	}
	execs := make(map[int]string)
	for _, p := range c.execList() {
		if _, child := p.snapshot(); child != nil {
			execs[child.Pid()] = p.execID
		}
	}
	resp := &task.PidsResponse{}
	for _, pid := range pids {
		info := &types.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execs[pid]; ok {
			value, err := rpc.Marshal(&runcopts.ProcessDetails{ExecId: id})
			if err != nil {
				return nil, err
			}
			info.Info = &types.Any{TypeUrl: "containerd.runc.v1.ProcessDetails", Value: value}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

// withTerminal makes the process object agree with the request about its terminal.
func withTerminal(spec []byte, terminal bool) ([]byte, error) {
	var has struct {
		Terminal bool `json:"terminal"`
	}
	if err := json.Unmarshal(spec, &has); err != nil {
		return nil, fmt.Errorf("specification: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if has.Terminal == terminal {
		return spec, nil
	}
	return withMember(spec, "terminal", strconv.FormatBool(terminal))
}

// sizedSpec returns the specification of an exec'd process with the size that its terminal was
// given before the start, and that size.
func (p *process) sizedSpec() ([]byte, terminalSize, error) {
	p.mu.Lock()
	spec, size := p.spec, p.size
	p.mu.Unlock()
	if size == (terminalSize{}) {
		return spec, size, nil
	}
	spec, err := withMember(spec, "consoleSize", fmt.Sprintf(`{"height":%d,"width":%d}`, size.height, size.width))
	return spec, size, err
}

// withMember returns a JSON object with one of its members replaced.
func withMember(object []byte, name, value string) ([]byte, error) {
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, fmt.Errorf("specification: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	fields[name] = json.RawMessage(value)
	out, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("specification: %w", err)
	}
	return out, nil
}
