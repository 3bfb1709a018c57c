package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
)

// maxIdle connections are kept for the next calls.
const maxIdle = 4

// conn is one connection; a single call or stream uses it at a time.
type conn struct {
	ttrpc *ttrpc.Client
	dead  atomic.Bool
}

// pool lends connections. ttrpc has no message that cancels a call; a server is notified by the end
// of the connection. So a call gets a connection to itself, and the connection of a cancelled one is
// closed instead of being lent again.
type pool struct {
	address string

	mu     sync.Mutex
	idle   []*conn
	lent   map[*conn]struct{}
	closed bool
}

func newPool(address string) *pool {
	return &pool{address: address, lent: map[*conn]struct{}{}}
}

// take lends an idle connection or creates one.
func (p *pool) take(ctx context.Context) (*conn, error) {
	if c, err := p.takeIdle(); c != nil || err != nil {
		return c, err
	}
	c := &conn{}
	client, err := rpc.Dial(ctx, p.address, ttrpc.WithOnClose(func() { c.dead.Store(true) }))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, reason.With(err, reason.SocketDenied)
	case err != nil:
		return nil, reason.With(err, reason.DaemonUnreachable)
	}
	c.ttrpc = client
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, discard(c, errClosed())
	}
	p.lent[c] = struct{}{}
	return c, nil
}

func (p *pool) takeIdle() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed()
	}
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.dead.Load() {
			if err := discard(c, nil); err != nil {
				return nil, err
			}
			continue
		}
		p.lent[c] = struct{}{}
		return c, nil
	}
	return nil, nil
}

// put returns a connection, to be lent again if it is healthy.
func (p *pool) put(c *conn, healthy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lent, c)
	if healthy && !p.closed && !c.dead.Load() && len(p.idle) < maxIdle {
		p.idle = append(p.idle, c)
		return
	}
	_ = c.ttrpc.Close() // of an unused connection
}

// close closes the connections, idle and lent.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	for _, c := range p.idle {
		err = discard(c, err)
	}
	for c := range p.lent {
		err = discard(c, err)
	}
	p.idle = nil
	return err
}

// discard closes c and returns err, or if that is nil, the error of closing.
func discard(c *conn, err error) error {
	if cerr := c.ttrpc.Close(); err == nil && cerr != nil {
		return fmt.Errorf("close connection: %w", cerr)
	}
	return err
}

func errClosed() error { return fmt.Errorf("use client: closed: %w", errdefs.ErrUnavailable) }

func (p *pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
