package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

// session connects this program's streams, terminal and signals with one process of a container until the process
// exits. run, exec and attach each prepare a session.
type session struct {
	a      *app
	c      *client.Client
	proxy  *proxy
	term   *terminal
	set    *stdio.Set
	id     string
	execID string
	// input forwards stdin; signals forwards signals.
	input, signals bool
	// wait waits until the process exits.
	wait func(context.Context) (client.Exit, error)
	// leave ends the session but not the process.
	leave  context.CancelCauseFunc
	hangup sync.Once
}

// hangup is the error of a session whose terminal hung up.
type hangup struct{}

func (hangup) Error() string { return "the terminal hung up" }

// killAfter bounds the time until a container whose output has no reader is killed, and that of calls to the daemon
// after the terminal hung up.
const killAfter = 2 * time.Second

// run returns the process's exit code as an exitCode. If the context ends first, or the user's terminal hangs up
// (hangup), the process keeps running, and its stdio is left for the next attach.
func (s *session) run(ctx context.Context) (err error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	s.leave = leave
	if err := s.term.makeRaw(); err != nil {
		return err
	}
	defer func() { err = errors.Join(s.term.restore(), err) }()
	if err := s.copy(ctx); err != nil {
		return err
	}
	stopSize := s.term.followSize(ctx, func(ctx context.Context, w, h uint32) error {
		return s.c.ResizePty(ctx, s.id, s.execID, w, h)
	})
	defer stopSize()
	if s.signals {
		s.proxy.forward(s.passSignal(ctx))
	}
	stopWatch := s.watchOutput(ctx)
	exit, err := s.wait(ctx)
	stopWatch()
	if err != nil {
		s.abandon()
		return left(ctx, err)
	}
	if s.set != nil {
		if err := s.set.Finish(ctx); err != nil && !errors.Is(err, syscall.EPIPE) {
			return left(ctx, err)
		}
	}
	return exitCode(exit.Status)
}

func (s *session) copy(ctx context.Context) error {
	if s.set == nil {
		return nil
	}
	if err := s.set.Started(); err != nil {
		return err
	}
	streams := stdio.Streams{Out: s.a.stdout, Err: s.a.stderr}
	if s.input {
		var in io.Reader = s.a.stdin
		streams.In = in
		streams.InEnd = func() {
			s.hungUp(ctx)
			_ = s.c.CloseIO(ctx, s.id, s.execID) // it fails if the process has exited
		}
	}
	s.set.Copy(streams)
	return nil
}

// hungUp reports whether the terminal has hung up, and ends the session if so. The process receives SIGHUP, as a program
// that lost its terminal does: a shell exits, and a process that keeps running can be attached to.
func (s *session) hungUp(ctx context.Context) bool {
	if !s.term.gone() {
		return false
	}
	s.hangup.Do(func() {
		if s.signals {
			ctx, cancel := context.WithTimeout(ctx, killAfter) // no user can interrupt the call
			defer cancel()
			_ = s.c.Kill(ctx, s.id, client.KillRequest{ExecID: s.execID, Signal: syscall.SIGHUP}) // it may have exited
		}
		s.leave(hangup{})
	})
	return true
}

// left returns the hangup that ended the context, or err if the context has not ended by a hangup.
func left(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.As(cause, new(hangup)) {
		return cause
	}
	return err
}

func (s *session) abandon() {
	if s.set != nil {
		s.set.Abandon()
	}
}

// passSignal forwards signals to the process, the third interrupt as SIGKILL.
func (s *session) passSignal(ctx context.Context) func(syscall.Signal) {
	var e escalation
	return func(sig syscall.Signal) {
		if sig == syscall.SIGHUP && s.hungUp(ctx) {
			return
		}
		send, warn := e.next(sig, time.Now())
		if warn {
			_, _ = s.a.stderr.WriteString("cleat: still running; interrupt again to kill it\r\n") // the signal matters more than the message
		}
		err := s.c.Kill(ctx, s.id, client.KillRequest{ExecID: s.execID, Signal: send})
		if err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			s.a.fail(err, 1)
		}
	}
}

// watchOutput ends the process when its output has no reader any more, as in a shell's pipeline; otherwise the process
// would wait for a reader forever. The returned function ends the watch.
func (s *session) watchOutput(ctx context.Context) (stop func()) {
	if s.set == nil || s.set.Broken() == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		select {
		case <-ctx.Done():
			return
		case <-s.set.Broken():
		}
		if s.hungUp(ctx) {
			return
		}
		timer := time.NewTimer(killAfter)
		defer timer.Stop()
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			_ = s.c.Kill(ctx, s.id, client.KillRequest{ExecID: s.execID, Signal: sig}) // it may have exited
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
	}()
	return func() {
		cancel()
		done.Wait()
	}
}
