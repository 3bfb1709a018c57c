package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/stdio"
)

// Start runs a created init or a declared exec'd process.
func (s *Server) Start(ctx context.Context, req *task.StartRequest) (*task.StartResponse, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := p.advance(evStart); err != nil {
		return nil, fmt.Errorf("%s: %w", p.id(), err)
	}
	// Whatever the result, an exit that arrived during the start is delivered now.
	defer s.deliverHeld(p)
	if p.execID == "" {
		err = s.startInit(ctx, p)
	} else {
		err = s.startExec(ctx, p)
	}
	if err != nil {
		return nil, errors.Join(reason.Operation("start "+p.id(), err), p.advance(evStartFailed))
	}
	_, child := p.snapshot()
	at := startTime(child)
	if p.execID == "" {
		if err := p.container.note(func(h *handle) { h.Started, h.StartedAt = true, at }); err != nil {
			s.log.Warnf("start %s: %v", p.id(), err) // it runs
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.stepLocked(evStarted); err != nil {
		return nil, err
	}
	p.startedAt = at
	s.publishStarted(p)
	return &task.StartResponse{Pid: uint32(p.pid)}, nil
}

// startTime returns the time of a start that the OCI runtime has just reported: now, or, if the
// process has ended by then, the time of its end.
func startTime(c *reaper.Child) time.Time {
	select {
	case <-c.Done():
		return c.Exit().At
	default:
		return time.Now()
	}
}

// advance steps if nothing has to be published.
func (p *process) advance(e event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.stepLocked(e)
	return err
}

func (s *Server) publishStarted(p *process) {
	if p.execID == "" {
		s.publish("start", "TaskStart", &events.TaskStart{ContainerId: p.container.id, Pid: uint32(p.pid)})
		return
	}
	s.publish("exec-started", "TaskExecStarted", &events.TaskExecStarted{
		ContainerId: p.container.id, ExecId: p.execID, Pid: uint32(p.pid),
	})
}

// startInit starts the init. The runtime is not interrupted when the caller disconnects: half a
// start would be neither created nor running.
func (s *Server) startInit(ctx context.Context, p *process) error {
	if p.container.restore != nil {
		return s.restoreInit(ctx, p)
	}
	return p.container.runtime.run(ctx, "start", func(ctx context.Context, rt *runc.Runc) error {
		return rt.Start(ctx, p.container.id)
	})
}

// Exec declares a process; Start runs it.
func (s *Server) Exec(ctx context.Context, req *task.ExecProcessRequest) (*types.Empty, error) {
	c, err := s.container(req.Id)
	if err != nil {
		return nil, err
	}
	if err := identifier.Check(req.ExecId); err != nil {
		return nil, err
	}
	if req.Spec == nil || len(req.Spec.Value) == 0 {
		return nil, fmt.Errorf("process %s: no specification: %w", req.ExecId, errdefs.ErrInvalidArgument)
	}
	spec, err := execSpec(req.Spec.Value, req.Terminal)
	if err != nil {
		return nil, fmt.Errorf("process %s: %w", req.ExecId, err)
	}
	if st, _ := c.init.snapshot(); st != running && st != paused && st != pausing && st != created && st != starting {
		return nil, fmt.Errorf("exec in container %s: task is %s: %w", c.id, st, errdefs.ErrFailedPrecondition)
	}
	p := newProcess(c, req.ExecId, stdio.Paths{Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Terminal: req.Terminal, Owner: stdioOwner(ctx)}, created)
	p.spec = spec
	if err := c.addExec(p); err != nil {
		return nil, err
	}
	s.publish("exec-added", "TaskExecAdded", &events.TaskExecAdded{ContainerId: c.id, ExecId: p.execID})
	return &types.Empty{}, nil
}

// startExec runs a declared process.
func (s *Server) startExec(ctx context.Context, p *process) (err error) {
	c := p.container
	if st, _ := c.init.snapshot(); st != running {
		return fmt.Errorf("container is %s: %w", st, errdefs.ErrFailedPrecondition)
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	io, err := stdio.Open(ctx, s.stdioEnv(c, nil), p.stdio)
	if err != nil {
		return err
	}
	u.Push("close stdio", io.Close)
	spec, size := p.sizedSpec()
	pidFile := c.runtime.temp("exec", ".pid")
	defer func() { _ = os.Remove(pidFile) }() // the runtime may not have created it
	capture := s.reaper.Capture()
	defer capture.Close()
	child, err := c.invoke(ctx, capture, p, io, pidFile, "exec",
		func(ctx context.Context, rt *runc.Runc, io runc.IO, console runc.ConsoleSocket) error {
			return rt.Exec(ctx, c.id, spec, &runc.ExecOpts{IO: io, PidFile: pidFile, ConsoleSocket: console, Detach: true})
		})
	if err != nil {
		return errors.Join(err, killFromFile(capture, pidFile))
	}
	if err := ctx.Err(); err != nil { // its start would never be reported
		return errors.Join(fmt.Errorf("caller has gone: %w", err), kill(child))
	}
	u.Release()
	p.mu.Lock()
	p.pid, p.child, p.io = child.Pid(), child, io
	closed := p.stdinClosed
	resized := p.size
	p.mu.Unlock()
	if resized != size { // while the OCI runtime was at work
		if err := io.Resize(resized.width, resized.height); err != nil {
			s.log.Warnf("resize terminal of %s: %v", p.id(), err)
		}
	}
	if closed {
		if err := io.CloseStdin(); err != nil {
			s.log.Warnf("close stdin of %s: %v", p.id(), err)
		}
	}
	s.watch(p)
	return nil
}

// killFromFile kills a process that the runtime started before it failed or was abandoned.
func killFromFile(capture *reaper.Capture, pidFile string) error {
	pid, err := readPid(pidFile)
	if err != nil {
		return nil //nolint:nilerr // no such process
	}
	child, err := capture.Claim(pid)
	if err != nil {
		return nil //nolint:nilerr // not our child, or gone
	}
	return kill(child)
}
