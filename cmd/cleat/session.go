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

// session connects this program's streams, terminal and signals with one process of a container
// until that has exited. run, exec and attach are each a session with a beginning of their own.
type session struct {
	a      *app
	c      *client.Client
	proxy  *proxy
	term   *terminal
	set    *stdio.Set
	id     string
	execID string
	// input sends stdin; signals passes signals on.
	input, signals bool
	// wait waits for the process.
	wait func(context.Context) (client.Exit, error)
	// leave ends the session, and not the process.
	leave  context.CancelCauseFunc
	hangup sync.Once
}

// hangup is the end of a session whose terminal is gone.
type hangup struct{}

func (hangup) Error() string { return "the terminal hung up" }

// killAfter is how long a container whose output nobody reads any more is given to end by itself, and the daemon to
// answer where there is nobody any more.
const killAfter = 2 * time.Second

// run returns the process's exit code, as an exitCode. Where the context ends first, or the user's terminal
// hangs up (hangup), the process goes on, and its stdio is left to whoever attaches next.
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
			_ = s.c.CloseIO(ctx, s.id, s.execID) // it fails where the process has exited already
		}
	}
	s.set.Copy(streams)
	return nil
}

// hungUp ends the session where the terminal has hung up, and says whether it has. The process gets the
// signal that a program without a terminal gets: a shell ends by it, what goes on can be attached to.
func (s *session) hungUp(ctx context.Context) bool {
	if !s.term.gone() {
		return false
	}
	s.hangup.Do(func() {
		if s.signals {
			ctx, cancel := context.WithTimeout(ctx, killAfter) // nobody is there to end a wait for the daemon
			defer cancel()
			_ = s.c.Kill(ctx, s.id, client.KillRequest{ExecID: s.execID, Signal: syscall.SIGHUP}) // it may have exited
		}
		s.leave(hangup{})
	})
	return true
}

// left is the hangup that ended the context, where one did, in place of the error that came of that.
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

// passSignal gives signals to the process, the third request to end as SIGKILL.
func (s *session) passSignal(ctx context.Context) func(syscall.Signal) {
	var e escalation
	return func(sig syscall.Signal) {
		if sig == syscall.SIGHUP && s.hungUp(ctx) {
			return
		}
		send, warn := e.next(sig, time.Now())
		if warn {
			_, _ = s.a.stderr.WriteString("cleat: it goes on; once more kills it\r\n") // a courtesy only
		}
		err := s.c.Kill(ctx, s.id, client.KillRequest{ExecID: s.execID, Signal: send})
		if err != nil && !errdefs.IsNotFound(err) && ctx.Err() == nil {
			s.a.fail(err, 1)
		}
	}
}

// watchOutput ends the process when its output cannot be written any more, as a shell's pipeline
// would: it would otherwise wait for a reader for ever. The returned function ends the watch.
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
