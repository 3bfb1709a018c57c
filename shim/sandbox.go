package shim

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/proto/types"
)

// States of a sandbox as reported to managers, in the words of the CRI.
const (
	sandboxReady    = "SANDBOX_READY"
	sandboxNotReady = "SANDBOX_NOTREADY"
)

// pod is the sandbox that a shim was started for: a name that several containers share, with its
// own life. What they share (namespaces, a cgroup) is in their specs, which their client wrote; so
// the pod holds only a life: it is ready from StartSandbox until StopSandbox or the end of this
// process, which is why its pid is the shim's. A shim with a sandbox stays, even without a
// container or a connection, until ShutdownSandbox.
type pod struct {
	id      string
	created time.Time
	stopped chan struct{} // closed by StopSandbox

	mu      sync.Mutex
	started bool
	exited  time.Time
}

// sandboxMethods are the sandbox API.
func sandboxMethods(s *Server) map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"CreateSandbox":   unary(s, s.CreateSandbox),
		"StartSandbox":    unary(s, s.StartSandbox),
		"Platform":        unary(s, s.Platform),
		"StopSandbox":     unary(s, s.StopSandbox),
		"WaitSandbox":     unary(s, s.WaitSandbox),
		"SandboxStatus":   unary(s, s.SandboxStatus),
		"PingSandbox":     unary(s, s.PingSandbox),
		"ShutdownSandbox": unary(s, s.ShutdownSandbox),
	}
}

// CreateSandbox creates the sandbox, one per shim.
func (s *Server) CreateSandbox(_ context.Context, req *sandbox.CreateSandboxRequest) (*types.Empty, error) {
	if err := identifier.Check(req.SandboxId); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if len(req.Rootfs) > 0 {
		return nil, fmt.Errorf("sandbox %s: this runtime's sandboxes have no root file system of their own: %w", req.SandboxId, errdefs.ErrInvalidArgument)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving() {
		return nil, fmt.Errorf("shim is shutting down: %w", errdefs.ErrUnavailable)
	}
	if s.pod != nil {
		return nil, fmt.Errorf("sandbox %s: %w", s.pod.id, errdefs.ErrAlreadyExists)
	}
	s.pod = &pod{id: req.SandboxId, created: time.Now().UTC(), stopped: make(chan struct{})}
	return &types.Empty{}, nil
}

// podOf returns the sandbox of that id.
func (s *Server) podOf(id string) (*pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pod == nil || s.pod.id != id {
		return nil, fmt.Errorf("sandbox %.80s: %w", id, errdefs.ErrNotFound)
	}
	return s.pod, nil
}

// StartSandbox marks the sandbox as ready. Idempotent; a stopped one stays stopped.
func (s *Server) StartSandbox(_ context.Context, req *sandbox.SandboxRequest) (*sandbox.StartSandboxResponse, error) {
	p, err := s.podOf(req.SandboxId)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.exited.IsZero() {
		return nil, fmt.Errorf("sandbox %s was stopped: %w", p.id, errdefs.ErrFailedPrecondition)
	}
	p.started = true
	return &sandbox.StartSandboxResponse{Pid: ownPID(), CreatedAt: types.FromTime(p.created)}, nil
}

// Platform returns the platform of the containers, which is the shim's.
func (s *Server) Platform(_ context.Context, req *sandbox.SandboxRequest) (*sandbox.PlatformResponse, error) {
	if _, err := s.podOf(req.SandboxId); err != nil {
		return nil, err
	}
	return &sandbox.PlatformResponse{Platform: &sandbox.Platform{Os: runtime.GOOS, Architecture: runtime.GOARCH}}, nil
}

// StopSandbox ends the sandbox with status 0. Its containers are stopped by their clients. Idempotent.
func (s *Server) StopSandbox(_ context.Context, req *sandbox.StopSandboxRequest) (*types.Empty, error) {
	p, err := s.podOf(req.SandboxId)
	if err != nil {
		return nil, err
	}
	p.stop()
	return &types.Empty{}, nil
}

func (p *pod) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited.IsZero() {
		p.exited = time.Now().UTC()
		close(p.stopped)
	}
}

// WaitSandbox waits for the end of the sandbox.
func (s *Server) WaitSandbox(ctx context.Context, req *sandbox.SandboxRequest) (*sandbox.WaitSandboxResponse, error) {
	p, err := s.podOf(req.SandboxId)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.stopped:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return &sandbox.WaitSandboxResponse{ExitedAt: types.FromTime(p.exited)}, nil
}

// SandboxStatus returns the state of the sandbox. It never blocks.
func (s *Server) SandboxStatus(_ context.Context, req *sandbox.SandboxStatusRequest) (*sandbox.SandboxStatusResponse, error) {
	p, err := s.podOf(req.SandboxId)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	resp := &sandbox.SandboxStatusResponse{SandboxId: p.id, Pid: ownPID(), State: sandboxNotReady, CreatedAt: types.FromTime(p.created)}
	switch {
	case !p.exited.IsZero():
		resp.ExitedAt = types.FromTime(p.exited)
	case p.started:
		resp.State = sandboxReady
	}
	return resp, nil
}

// PingSandbox answers.
func (s *Server) PingSandbox(_ context.Context, req *sandbox.SandboxRequest) (*types.Empty, error) {
	if _, err := s.podOf(req.SandboxId); err != nil {
		return nil, err
	}
	return &types.Empty{}, nil
}

// ShutdownSandbox ends the sandbox and with it the shim, unless it holds containers.
func (s *Server) ShutdownSandbox(_ context.Context, req *sandbox.SandboxRequest) (*types.Empty, error) {
	p, err := s.podOf(req.SandboxId)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.containers); n > 0 {
		return nil, fmt.Errorf("sandbox %s holds %d containers: delete their tasks first: %w", p.id, n, errdefs.ErrFailedPrecondition)
	}
	p.stop()
	s.pod = nil
	s.leave()
	return &types.Empty{}, nil
}
