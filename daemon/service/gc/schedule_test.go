package gc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

func TestPacing_Due(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	const s = time.Second
	cfg := Schedule{PauseThreshold: 0.02, MutationThreshold: 100, StartupDelay: 3 * s, ScheduleDelay: s}
	ran := pacing{started: t0, ended: at(10 * s), rest: 20 * s}
	for title, c := range map[string]struct {
		p    func(p *pacing, cfg *Schedule)
		want time.Duration // from t0; -1 for never
	}{
		"the first, after the start":             {func(p *pacing, _ *Schedule) { p.ended = time.Time{} }, 3 * s},
		"nothing happened":                       {func(*pacing, *Schedule) {}, -1},
		"few changes":                            {func(p *pacing, _ *Schedule) { p.mutations, p.since = 99, at(11*s) }, -1},
		"many changes, after the rest":           {func(p *pacing, _ *Schedule) { p.mutations, p.since = 100, at(11*s) }, 30 * s},
		"many changes, long after the rest":      {func(p *pacing, _ *Schedule) { p.mutations, p.since = 100, at(50*s) }, 51 * s},
		"changes do not count":                   {func(p *pacing, c *Schedule) { p.mutations, c.MutationThreshold = 1000, 0 }, -1},
		"a deletion, after the rest":             {func(p *pacing, _ *Schedule) { p.deletions, p.since = 1, at(11*s) }, 30 * s},
		"as many deletions as bring one on, now": {func(p *pacing, c *Schedule) { p.deletions, p.since, c.DeletionThreshold = 5, at(11*s), 5 }, 12 * s},
		"fewer of them":                          {func(p *pacing, c *Schedule) { p.deletions, p.since, c.DeletionThreshold = 4, at(11*s), 5 }, 30 * s},
		"a call waits":                           {func(p *pacing, _ *Schedule) { p.wanted = at(11 * s) }, 12 * s},
		"a call waits before the first":          {func(p *pacing, _ *Schedule) { p.ended, p.wanted = time.Time{}, at(0) }, s},
		"after a failure":                        {func(p *pacing, _ *Schedule) { p.failures = 1 }, 11 * s},
		"after three":                            {func(p *pacing, _ *Schedule) { p.failures = 3 }, 14 * s},
		"after very many":                        {func(p *pacing, _ *Schedule) { p.failures = 1000 }, 10*s + 5*time.Minute},
		"a call waits though failures need time": {func(p *pacing, _ *Schedule) { p.failures, p.wanted = 9, at(11*s) }, 12 * s},
	} {
		p, cfg := ran, cfg
		c.p(&p, &cfg)
		got, ok := p.due(cfg)
		if ok != (c.want >= 0) || ok && !got.Equal(at(c.want)) {
			t.Errorf("%s: %v %t, want %v", title, got.Sub(t0), ok, c.want)
		}
	}
}

func TestPacing_Rest(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		threshold    float64
		paused, mark time.Duration
		want         time.Duration
	}{
		{0.02, 10 * ms, 0, 490 * ms},
		{0.5, 10 * ms, 0, 10 * ms},
		{0.9, 10 * ms, 0, 10 * ms},
		{0, 10 * ms, 0, 0},
		{0.02, 0, 100 * ms, 900 * ms},
		{0.02, 10 * ms, 100 * ms, 900 * ms},
	} {
		var p pacing
		p.end(time.Unix(1, 0), &cleatapi.GCRun{PausedNs: int64(c.paused), MarkNs: int64(c.mark)}, false, Schedule{PauseThreshold: c.threshold})
		if diff := p.rest - c.want; diff > ms || diff < -ms {
			t.Errorf("%+v: rest %v", c, p.rest)
		}
	}
	var p pacing
	cfg := Schedule{PauseThreshold: 0.5}
	p.end(time.Unix(1, 0), &cleatapi.GCRun{PausedNs: int64(8 * ms)}, false, cfg)
	p.end(time.Unix(2, 0), &cleatapi.GCRun{}, true, cfg)
	p.end(time.Unix(3, 0), &cleatapi.GCRun{}, true, cfg)
	if p.failures != 2 {
		t.Errorf("failures: %d", p.failures)
	}
	p.end(time.Unix(4, 0), &cleatapi.GCRun{PausedNs: int64(16 * ms)}, false, cfg)
	if p.failures != 0 || p.paused != 10*ms {
		t.Errorf("failures %d, average %v", p.failures, p.paused)
	}
}

// collecting is a scheduler whose work waits for the test, and returns what the test says.
type collecting struct {
	*scheduler
	began chan struct{}
	end   chan error
	stop  func()
}

func startCollector(t *testing.T, cfg Schedule) *collecting {
	t.Helper()
	c := &collecting{began: make(chan struct{}), end: make(chan error)}
	runs := int64(0)
	c.scheduler = newScheduler(cfg, slog.New(slog.DiscardHandler), func(ctx context.Context) (*cleatapi.CollectResponse, error) {
		select {
		case c.began <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		runs++
		select {
		case err := <-c.end:
			return &cleatapi.CollectResponse{Bytes: runs, Run: &cleatapi.GCRun{Removed: 1, Bytes: runs}}, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.loop(ctx) })
	c.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(c.stop)
	return c
}

type answer struct {
	bytes int64
	err   error
}

// ask waits for a collection in the background. It returns once the scheduler knows.
func (c *collecting) ask(ctx context.Context, t *testing.T, waiting int) <-chan answer {
	t.Helper()
	out := make(chan answer, 1)
	go func() {
		resp, err := c.now(ctx)
		a := answer{err: err}
		if resp != nil {
			a.bytes = resp.Bytes
		}
		out <- a
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		c.mu.Lock()
		n := len(c.waiting)
		c.mu.Unlock()
		if n >= waiting {
			break
		}
	}
	return out
}

func TestRequests_ShareNextCollection(t *testing.T) {
	c := startCollector(t, Schedule{})
	<-c.began // the first, after the start
	one, two := c.ask(t.Context(), t, 1), c.ask(t.Context(), t, 2)
	select {
	case <-one:
		t.Fatal("a caller got a collection that had begun before")
	case <-c.began:
		t.Fatal("two at a time")
	default:
	}
	c.end <- nil
	<-c.began
	c.end <- nil
	if a, b := <-one, <-two; a != (answer{bytes: 2}) || b != a {
		t.Errorf("%+v %+v", a, b)
	}
	c.note(metadata.Changes{Mutations: 1, Deletions: 1})
	<-c.began
	three := c.ask(t.Context(), t, 1)
	c.end <- nil
	<-c.began
	c.end <- nil
	<-three
	if s := c.statistics(); s.Runs != 4 || s.Removed != 4 || s.Bytes != 10 || s.Failures != 0 || s.Last.Bytes != 4 {
		t.Errorf("%+v", s)
	}
}

func TestRequests_FailedCollection(t *testing.T) {
	c := startCollector(t, Schedule{})
	<-c.began
	c.end <- nil
	one := c.ask(t.Context(), t, 0)
	<-c.began
	fault := errors.New("no")
	c.end <- fault
	if a := <-one; !errors.Is(a.err, fault) {
		t.Errorf("%+v", a)
	}
	if s := c.statistics(); s.Failures != 1 || s.LastError != "no" {
		t.Errorf("%+v", s)
	}
	<-c.began // it is tried again by itself
	c.end <- nil
}

func TestRequests_CollectorEnds_Return(t *testing.T) {
	c := startCollector(t, Schedule{})
	<-c.began
	ctx, cancel := context.WithCancel(t.Context())
	gone := c.ask(ctx, t, 1)
	cancel()
	if a := <-gone; !errors.Is(a.err, context.Canceled) {
		t.Errorf("%+v", a)
	}
	left := c.ask(t.Context(), t, 2)
	c.stop()
	if a := <-left; !errdefs.IsUnavailable(a.err) {
		t.Errorf("%+v", a)
	}
	if _, err := c.now(t.Context()); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}
