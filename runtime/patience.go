package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/cleatproject/cleat/internal/hostproc"
)

// How deadlines of calls to shims are measured.
//
// A deadline distinguishes a stuck shim from a working one. On an overloaded host time passes without a shim
// having had a chance to answer, so a limit does not expire while the shim, or the OCI runtime that
// it waits for, runs or waits for a processor or a disk. A shim that is stopped, or sleeps, could
// answer and does not.

const (
	// probeTime is how long the shim is watched once a limit has passed.
	probeTime = 250 * time.Millisecond
	// patienceFactor bounds the extension of a limit: a multiple of it.
	patienceFactor = 12
)

// patience cancels a context when a process stayed silent for a limit although it could run.
type patience struct {
	limit  time.Duration
	end    time.Time
	pid    func() int
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	earlier hostproc.Activity
	probing bool
}

// withPatience returns a context that is cancelled, with errSlow as its cause, once limit has passed
// in which the process of that pid could run and stop was not called. pid returns 0 if it is not
// known: the limit is then a plain one.
func withPatience(ctx context.Context, limit time.Duration, pid func() int) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &patience{limit: limit, end: time.Now().Add(patienceFactor * limit), pid: pid, cancel: cancel}
	p.mu.Lock()
	p.timer = time.AfterFunc(limit, p.expire)
	p.mu.Unlock()
	return ctx, p.stop
}

// Patience returns a context that is cancelled once the task's shim stayed silent for a limit although it could run;
// see the comment at the top of this file. stop must be called when the caller has its answer.
func (t *Task) Patience(ctx context.Context, limit time.Duration) (_ context.Context, stop func()) {
	return withPatience(ctx, limit, t.shimPid)
}

// stop ends the watch and the context.
func (p *patience) stop() {
	p.mu.Lock()
	p.stopped = true
	p.timer.Stop()
	p.mu.Unlock()
	p.cancel(context.Canceled)
}

// expire is called when the limit has passed, and then after each probe.
func (p *patience) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	pid := p.pid()
	if pid == 0 || time.Now().After(p.end) {
		p.cancel(errSlow)
		return
	}
	now := hostproc.ActivityOf(pid)
	switch {
	case !p.probing:
		p.probing = true
	case now.Busy(p.earlier):
	default:
		p.cancel(errSlow)
		return
	}
	p.earlier = now
	p.timer = time.AfterFunc(probeTime, p.expire)
}
