package shim

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/shim/stdio"
)

// register registers the task service under both its names, the sandbox service, and the native one with s as server.
func register(to *ttrpc.Server, s *Server) {
	methods := map[string]ttrpc.Method{
		"State":      unary(s, s.State),
		"Create":     unary(s, s.Create),
		"Start":      unary(s, s.Start),
		"Delete":     unary(s, s.Delete),
		"Pids":       unary(s, s.Pids),
		"Pause":      unary(s, s.Pause),
		"Resume":     unary(s, s.Resume),
		"Checkpoint": unary(s, s.Checkpoint),
		"Kill":       unary(s, s.Kill),
		"Exec":       unary(s, s.Exec),
		"ResizePty":  unary(s, s.ResizePty),
		"CloseIO":    unary(s, s.CloseIO),
		"Update":     unary(s, s.Update),
		"Wait":       unary(s, s.Wait),
		"Stats":      unary(s, s.Stats),
		"Connect":    unary(s, s.Connect),
		"Shutdown":   unary(s, s.Shutdown),
	}
	for _, name := range []string{task.V2Service, task.V3Service} {
		to.RegisterService(name, &ttrpc.ServiceDesc{Methods: methods})
	}
	to.RegisterService(sandbox.Service, &ttrpc.ServiceDesc{Methods: sandboxMethods(s)})
	to.RegisterService(shimapi.Service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Run":    unary(s, s.Run),
		"Status": unary(s, s.Status),
	}})
}

// unary is rpc.Unary that gives memory back after calls.
func unary[Req, Resp any, PReq rpc.Pointer[Req], PResp rpc.Pointer[Resp]](
	s *Server, handle func(context.Context, PReq) (PResp, error),
) ttrpc.Method {
	return rpc.Unary(func(ctx context.Context, req PReq) (PResp, error) {
		defer s.countCall()
		return handle(ctx, req)
	})
}

// State returns the state of a process. It never blocks.
func (s *Server) State(_ context.Context, req *task.StateRequest) (*task.StateResponse, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	return p.stateResponse(), nil
}

// Wait waits for a process's exit.
func (s *Server) Wait(ctx context.Context, req *task.WaitRequest) (*task.WaitResponse, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	exit, err := p.wait(ctx)
	if err != nil {
		return nil, err
	}
	return &task.WaitResponse{ExitStatus: uint32(exit.Status), ExitedAt: types.FromTime(exit.At)}, nil
}

// Connect identifies the shim. A daemon that calls it is reachable, so pending events are sent at
// once.
func (s *Server) Connect(_ context.Context, req *task.ConnectRequest) (*task.ConnectResponse, error) {
	s.events.retryNow("")
	resp := &task.ConnectResponse{ShimPid: ownPID(), Version: s.version}
	if c, err := s.container(req.Id); err == nil {
		resp.TaskPid = c.init.stateResponse().Pid
	}
	return resp, nil
}

// Status returns all states, without calling the OCI runtime.
func (s *Server) Status(_ context.Context, req *shimapi.StatusRequest) (*shimapi.StatusResponse, error) {
	s.events.retryNow(req.TtrpcAddress)
	resp := &shimapi.StatusResponse{
		ShimPid: ownPID(), Version: s.version, PendingEvents: uint32(s.events.pending()),
	}
	for _, c := range s.list() {
		resp.Runtime = c.runtime.binary
		resp.Processes = append(resp.Processes, c.init.native())
		for _, p := range c.execList() {
			resp.Processes = append(resp.Processes, p.native())
		}
	}
	return resp, nil
}

// Shutdown ends the shim unless it holds containers or a sandbox.
func (s *Server) Shutdown(context.Context, *task.ShutdownRequest) (*types.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) == 0 && s.pod == nil {
		s.leave()
	}
	return &types.Empty{}, nil
}

// ResizePty sets the size of a terminal, in cells. An exec'd process that is not started yet gets
// it at its start.
func (s *Server) ResizePty(_ context.Context, req *task.ResizePtyRequest) (*types.Empty, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	if req.Width > stdio.MaxCells || req.Height > stdio.MaxCells {
		return nil, fmt.Errorf("resize to %dx%d: %w", req.Width, req.Height, errdefs.ErrInvalidArgument)
	}
	p.mu.Lock()
	io := p.io
	if io == nil && p.execID != "" && p.stdio.Terminal && (p.state == created || p.state == starting) {
		p.size = terminalSize{req.Width, req.Height}
		p.mu.Unlock()
		return &types.Empty{}, nil
	}
	p.mu.Unlock()
	if io == nil {
		return nil, fmt.Errorf("resize: process %s is not running: %w", p.id(), errdefs.ErrFailedPrecondition)
	}
	if err := io.Resize(req.Width, req.Height); err != nil {
		return nil, err
	}
	return &types.Empty{}, nil
}

// CloseIO closes the shim's side of stdin. Idempotent.
func (s *Server) CloseIO(_ context.Context, req *task.CloseIORequest) (*types.Empty, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	io := p.io
	if req.Stdin && io == nil {
		p.stdinClosed = true // before the process was started
	}
	p.mu.Unlock()
	if io != nil && req.Stdin {
		if err := io.CloseStdin(); err != nil {
			return nil, fmt.Errorf("close stdin of %s: %w", p.id(), err)
		}
		if p.execID == "" {
			if err := p.container.note(func(h *handle) { h.StdinClosed = true }); err != nil {
				s.log.Warnf("close stdin of %s: %v", p.id(), err)
			}
		}
	}
	return &types.Empty{}, nil
}
