package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/containerd/errdefs"
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
}

// killAfter is how long a container whose output nobody reads any more is given to end by itself.
const killAfter = 2 * time.Second

// run returns the process's exit code, as an exitCode. Where the context ends first, the process
// goes on, and its stdio is left to whoever attaches next.
func (s *session) run(ctx context.Context) (err error) {
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
		return err
	}
	if s.set != nil {
		if err := s.set.Finish(ctx); err != nil && !errors.Is(err, syscall.EPIPE) {
			return err
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
			_ = s.c.CloseIO(ctx, s.id, s.execID) // it fails where the process has exited already
		}
	}
	s.set.Copy(streams)
	return nil
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
