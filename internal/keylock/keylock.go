// Package keylock serialises work by name.
package keylock

import (
	"context"
	"sync"
)

// Locks are locks by name; one exists as long as it is held. The zero value is ready for use.
type Locks[K comparable] struct {
	mu   sync.Mutex
	held map[K]chan struct{}
}

// Lock waits for the name, or for the end of ctx, whose error it returns then. unlock releases it, and has to be
// called once.
func (l *Locks[K]) Lock(ctx context.Context, name K) (unlock func(), err error) {
	for {
		l.mu.Lock()
		busy, ok := l.held[name]
		if !ok {
			if l.held == nil {
				l.held = make(map[K]chan struct{})
			}
			done := make(chan struct{})
			l.held[name] = done
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.held, name)
				close(done)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
