package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// Kill signals a process, or all of the container. It returns errdefs.ErrNotFound if the process
// has exited, and waits for no other operation.
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

// killInit uses the OCI runtime, for which the init may be more than a process.
func (s *Server) killInit(ctx context.Context, p *process, child *reaper.Child, req *task.KillRequest) error {
	err := p.container.runtime.run(ctx, "kill", func(ctx context.Context, rt *runc.Runc) error {
		return rt.Kill(ctx, p.container.id, int(req.Signal), &runc.KillOpts{All: req.All})
	})
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
	err = p.container.runtime.run(ctx, "pause", func(ctx context.Context, rt *runc.Runc) error { return rt.Pause(ctx, req.Id) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pause %s: %w", req.Id, err), p.advance(evPauseFailed))
	}
	return &types.Empty{}, s.publishStep(p, evPaused)
}

// Resume thaws the container.
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
		return nil, fmt.Errorf("resume %s: task is %s: %w", req.Id, st, errdefs.ErrFailedPrecondition)
	}
	err = p.container.runtime.run(ctx, "resume", func(ctx context.Context, rt *runc.Runc) error { return rt.Resume(ctx, req.Id) })
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", req.Id, err)
	}
	return &types.Empty{}, s.publishStep(p, evResumed)
}

// publishStep steps and publishes the event that the step requires.
func (s *Server) publishStep(p *process, e event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	eff, err := p.stepLocked(e)
	if err != nil {
		return err
	}
	switch eff {
	case publishPaused:
		s.publish("paused", "TaskPaused", &events.TaskPaused{ContainerId: p.container.id})
	case publishResumed:
		s.publish("resumed", "TaskResumed", &events.TaskResumed{ContainerId: p.container.id})
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
	if req.Resources == nil {
		return nil, fmt.Errorf("update %s: no resources: %w", c.id, errdefs.ErrInvalidArgument)
	}
	var resources specs.LinuxResources
	if err := decodeStrictly(req.Resources.Value, &resources); err != nil {
		return nil, fmt.Errorf("update %s: resources: %w", c.id, err)
	}
	err = c.runtime.run(ctx, "update", func(ctx context.Context, rt *runc.Runc) error { return rt.Update(ctx, c.id, &resources) })
	if err != nil {
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
		return nil, fmt.Errorf("processes of %s: task is %s: %w", c.id, st, errdefs.ErrFailedPrecondition)
	}
	c.mu.Lock()
	cg := c.cgroup
	c.mu.Unlock()
	pids, err := cg.Pids()
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

// execSpec decodes the process object of a request and makes its terminal agree with the request.
func execSpec(data []byte, terminal bool) (*specs.Process, error) {
	spec := &specs.Process{}
	if err := decodeStrictly(data, spec); err != nil {
		return nil, fmt.Errorf("specification: %w", err)
	}
	spec.Terminal = terminal
	return spec, nil
}

// decodeStrictly decodes JSON that is passed on in decoded form. A member that would be lost is an error.
func decodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && len(bytes.TrimSpace(data[d.InputOffset():])) > 0 {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// sizedSpec returns the specification of an exec'd process with the terminal size set before the
// start, and that size.
func (p *process) sizedSpec() (specs.Process, terminalSize) {
	p.mu.Lock()
	defer p.mu.Unlock()
	spec := *p.spec
	if p.size != (terminalSize{}) {
		spec.ConsoleSize = &specs.Box{Height: uint(p.size.height), Width: uint(p.size.width)}
	}
	return spec, p.size
}
