package gc

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
)

// Schedule says when garbage is collected by itself. Each field has the meaning that containerd
// publishes for the name; the zero value collects after each deletion, as often as it can.
type Schedule struct {
	// PauseThreshold bounds the share of time for which writers may be kept waiting, by the average
	// of what collections took of it; at most 0.5. 0 means unbounded.
	PauseThreshold float64
	// DeletionThreshold is how many deletions bring on a collection at once. With 0, or before that
	// many, one comes when PauseThreshold allows it.
	DeletionThreshold int
	// MutationThreshold is how many changes bring on a collection though none deleted anything. 0
	// is never.
	MutationThreshold int
	// ScheduleDelay is between what brings on a collection and its begin.
	ScheduleDelay time.Duration
	// StartupDelay is before the first one.
	StartupDelay time.Duration
}

// DefaultSchedule is the published default.
func DefaultSchedule() Schedule {
	return Schedule{PauseThreshold: 0.02, MutationThreshold: 100, StartupDelay: 100 * time.Millisecond}
}

const (
	maxPauseThreshold = 0.5
	// workShare keeps the reading of collections to a tenth of one processor's time.
	workShare = 9
	// retryFirst doubles with each failure in a row, up to retryMost.
	retryFirst, retryMost = time.Second, 5 * time.Minute
)

// pacing is what decides when the next collection is. It does no I/O and has no clock.
type pacing struct {
	started time.Time // of the daemon
	// since is when the first change after the last collection's begin was, wanted when a request
	// asked for a collection; zero for never.
	since, wanted        time.Time
	mutations, deletions int
	// ended is when the last collection did, and rest how long none should come after it.
	ended    time.Time
	rest     time.Duration
	paused   time.Duration // average of a collection
	failures int           // in a row
}

// due returns when the next collection is to begin, or false while nothing brings one on.
func (p *pacing) due(cfg Schedule) (time.Time, bool) {
	first := p.started.Add(cfg.StartupDelay)
	switch {
	case !p.wanted.IsZero():
		return p.wanted.Add(cfg.ScheduleDelay), true
	case p.failures > 0:
		return p.ended.Add(min(retryFirst<<min(p.failures-1, 16), retryMost)), true
	case p.ended.IsZero():
		return first, true
	case cfg.DeletionThreshold > 0 && p.deletions >= cfg.DeletionThreshold:
		return p.since.Add(cfg.ScheduleDelay), true
	case p.deletions > 0, cfg.MutationThreshold > 0 && p.mutations >= cfg.MutationThreshold:
		at, rested := p.since.Add(cfg.ScheduleDelay), p.ended.Add(p.rest)
		if rested.After(at) {
			at = rested
		}
		return at, true
	}
	return time.Time{}, false
}

// begin is called when a collection begins: changes from now on are the next one's.
func (p *pacing) begin() {
	p.since, p.wanted = time.Time{}, time.Time{}
	p.mutations, p.deletions = 0, 0
}

// end is called when it has ended.
func (p *pacing) end(now time.Time, run *cleatapi.GCRun, failed bool, cfg Schedule) {
	p.ended = now
	if failed {
		p.failures++
		return
	}
	p.failures = 0
	if paused := time.Duration(run.PausedNs); p.paused == 0 {
		p.paused = paused
	} else {
		p.paused = (p.paused*3 + paused) / 4
	}
	p.rest = workShare * time.Duration(run.MarkNs)
	if t := min(cfg.PauseThreshold, maxPauseThreshold); t > 0 {
		p.rest = max(p.rest, time.Duration(float64(p.paused)*(1/t-1)))
	}
}

// collected is the result of a collection, for the requests that wait for it.
type collected struct {
	resp *cleatapi.CollectResponse
	err  error
}

// scheduler runs collections, one at a time, when they are due.
type scheduler struct {
	cfg  Schedule
	log  *slog.Logger
	work func(ctx context.Context) (*cleatapi.CollectResponse, error)
	wake chan struct{} // holds one

	mu      sync.Mutex
	pacing  pacing
	waiting []chan<- collected // of the next collection
	stats   cleatapi.GCStatsResponse
	closed  bool
}

func newScheduler(cfg Schedule, log *slog.Logger, work func(ctx context.Context) (*cleatapi.CollectResponse, error)) *scheduler {
	return &scheduler{cfg: cfg, log: log, work: work, wake: make(chan struct{}, 1), pacing: pacing{started: time.Now()}}
}

// note counts what was changed. It returns at once.
func (c *scheduler) note(ch metadata.Changes) {
	c.mu.Lock()
	if c.pacing.since.IsZero() {
		c.pacing.since = time.Now()
	}
	c.pacing.mutations += ch.Mutations
	c.pacing.deletions += ch.Deletions
	c.mu.Unlock()
	c.poke()
}

func (c *scheduler) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it is awake already
	}
}

// now waits for a collection that begins after this call, and shares it with others who wait. The
// collection continues if ctx ends.
func (c *scheduler) now(ctx context.Context) (*cleatapi.CollectResponse, error) {
	done := make(chan collected, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errStopping()
	}
	c.waiting = append(c.waiting, done)
	if c.pacing.wanted.IsZero() {
		c.pacing.wanted = time.Now()
	}
	c.mu.Unlock()
	c.poke()
	select {
	case r := <-done:
		return r.resp, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for garbage collection: %w", ctx.Err())
	}
}

func errStopping() error {
	return fmt.Errorf("collect garbage: the daemon is stopping: %w", errdefs.ErrUnavailable)
}

// loop runs collections until ctx ends; its caller waits for it.
func (c *scheduler) loop(ctx context.Context) {
	defer c.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
		c.mu.Lock()
		at, ok := c.pacing.due(c.cfg)
		c.mu.Unlock()
		switch wait := time.Until(at); {
		case !ok:
		case wait > 0:
			timer.Reset(wait)
		default:
			c.once(ctx)
			timer.Reset(0) // changes that came during it may be due
		}
	}
}

// once runs one collection.
func (c *scheduler) once(ctx context.Context) {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.pacing.begin()
	c.mu.Unlock()

	began := time.Now()
	resp, err := c.work(ctx)
	run := &cleatapi.GCRun{}
	if resp != nil {
		run = resp.Run
	}
	run.StartedAt, run.DurationNs = types.FromTime(began), int64(time.Since(began))
	if err != nil && ctx.Err() != nil {
		err = errStopping()
	} else if err != nil {
		c.log.Error("garbage collection failed, it is tried again", "error", err)
	} else {
		c.log.Debug("collected garbage", "removed", run.Removed, "bytes", run.Bytes, "objects", run.Objects,
			"took", time.Duration(run.DurationNs), "pause", time.Duration(run.PauseNs))
	}

	c.mu.Lock()
	c.pacing.end(time.Now(), run, err != nil, c.cfg)
	c.stats.Runs++
	c.stats.Removed += run.Removed
	c.stats.Bytes += run.Bytes
	c.stats.PausedNs += run.PausedNs
	c.stats.Last, c.stats.LastError = run, ""
	if err != nil {
		c.stats.Failures++
		c.stats.LastError = err.Error()
	}
	c.mu.Unlock()
	for _, w := range waiting {
		w <- collected{resp, err}
	}
}

// close turns those away who wait.
func (c *scheduler) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, w := range c.waiting {
		w <- collected{err: errStopping()}
	}
	c.waiting = nil
}

// statistics returns what was done so far.
func (c *scheduler) statistics() *cleatapi.GCStatsResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	return &s
}
