// Package gate admits work in bounded numbers.
//
// Work that loads the host (starting a shim, running the OCI runtime) is slower the more of it runs
// in parallel, until deadlines expire although nothing is broken. A Gate admits a fixed number
// and queues the rest, first come, first served.
//
// A pass expires: work that takes unusually long waits for something other than the host, such as a
// stopped process, and must not block others. Admitted numbers are therefore a bound on load,
// not on concurrency, and a Gate is not a lock.
package gate

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Gate admits a bounded number of holders. Its methods may be called concurrently.
type Gate struct {
	name  string
	lease time.Duration

	mu    sync.Mutex
	free  int
	queue []*waiter // in order of arrival; waiters remove themselves
}

type waiter struct{ admitted chan struct{} }

// New returns a gate for n holders at a time, at least 1. Each counts for at most lease; 0 for
// no bound. The name is used in errors.
func New(name string, n int, lease time.Duration) *Gate {
	return &Gate{name: name, lease: lease, free: max(n, 1)}
}

// Enter waits for admission, in the order of the calls. It returns a function that must be called
// once the work is done, and may be called again; or the error of ctx if that ends first.
func (g *Gate) Enter(ctx context.Context) (leave func(), err error) {
	g.mu.Lock()
	if g.free > 0 && len(g.queue) == 0 {
		g.free--
		g.mu.Unlock()
		return g.pass(), nil
	}
	w := &waiter{make(chan struct{})}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	select {
	case <-w.admitted:
		return g.pass(), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, q := range g.queue {
		if q == w {
			g.queue = append(g.queue[:i], g.queue[i+1:]...)
			return nil, fmt.Errorf("wait for a turn to %s: %w", g.name, context.Cause(ctx))
		}
	}
	g.releaseLocked() // admitted at the same moment
	return nil, fmt.Errorf("wait for a turn to %s: %w", g.name, context.Cause(ctx))
}

// pass returns the function that ends a holder's admission, at the latest by the lease.
func (g *Gate) pass() (leave func()) {
	var once sync.Once
	release := func() {
		once.Do(func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.releaseLocked()
		})
	}
	if g.lease <= 0 {
		return release
	}
	timer := time.AfterFunc(g.lease, release)
	return func() {
		timer.Stop()
		release()
	}
}

// releaseLocked admits the first in the queue, if there is one.
func (g *Gate) releaseLocked() {
	if len(g.queue) == 0 {
		g.free++
		return
	}
	w := g.queue[0]
	g.queue[0] = nil
	g.queue = g.queue[1:]
	close(w.admitted)
}

// Waiting returns the number of callers that wait for admission.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}
