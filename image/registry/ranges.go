package registry

import (
	"context"
	"errors"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ranges sets when a blob is fetched by several parallel requests, each for a part of it. The zero
// value is never.
type Ranges struct {
	// From is the minimal number of missing bytes.
	From int64
	// AtOnce is the number of requests for one blob; below 2 is never.
	AtOnce int
	// Loopback uses ranges for servers on this machine too, for tests: it brings no gain.
	Loopback bool
	// Piece is the number of bytes of one request; 0 for 4 MiB. AtOnce of them are in memory for a blob.
	Piece int64
}

// piece returns the size of a piece in bytes.
func (o Ranges) piece() int64 {
	if o.Piece > 0 {
		return o.Piece
	}
	return pieceSize
}

const pieceSize = 4 << 20

// Limit bounds the parallel requests for content. It is called before the first request.
func (r *Repository) Limit(n int) { r.slots = make(chan struct{}, max(n, 1)) }

// slot waits until a request may be made; the returned function releases it, once.
func (r *Repository) slot(ctx context.Context) (release func(), err error) {
	if r.slots == nil {
		return func() {}, nil
	}
	select {
	case r.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-r.slots }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// slotted releases its slot when it is closed.
type slotted struct {
	io.ReadCloser
	release func()
}

// Close implements io.Closer.
func (s slotted) Close() error {
	defer s.release()
	return s.ReadCloser.Close()
}

// byRanges reports whether so many bytes are fetched by several requests.
func (r *Repository) byRanges(missing int64) bool {
	o := r.client.opts.Ranges
	if o.AtOnce < 2 || o.From <= 0 || missing < o.From || missing <= o.piece() {
		return false
	}
	for _, s := range r.servers {
		if s.can&canPull != 0 {
			return o.Loopback || !isLoopback(s.base.Host)
		}
	}
	return false
}

// errNoRanges is returned for a server that has answered with a range before, and now does not.
var errNoRanges = errors.New("response with the whole content to a request for a part")

// ranges is a blob that is fetched in pieces, which are returned in their order. It is not safe for concurrent
// use.
type ranges struct {
	size   int64
	length int64 // of a piece
	atOnce int
	// slot waits for a slot, piece returns a transfer of a part that has not started, and single fetches the rest by
	// one request.
	slot   func() (release func(), err error)
	piece  func(at span) *body
	single func(offset int64) (io.ReadCloser, error)
	cancel context.CancelFunc // ends slot and piece
	wg     sync.WaitGroup

	next     int64 // offset of the first piece not yet requested
	offset   int64 // end of the bytes returned
	queue    []*piece
	free     [][]byte
	buf      []byte // of rest
	rest     []byte
	fallback io.ReadCloser // replaces pieces if ranges are not available
	err      error         // returned by every later Read
}

// piece is a part of a blob that has been requested.
type piece struct {
	at   span
	buf  []byte
	done chan struct{}
	err  error
}

// fetchRanges fetches by several requests, if the server answers the first with a range; else that is
// the only one.
func (r *Repository) fetchRanges(ctx context.Context, desc ocispec.Descriptor, offset int64, release func()) (io.ReadCloser, error) {
	at := span{offset, min(offset+r.client.opts.Ranges.piece(), desc.Size)}
	rctx, cancel := context.WithCancel(ctx)
	rc, partial, err := r.open(rctx, desc, at)
	if err != nil {
		cancel()
		return nil, err
	}
	if !partial {
		b := r.body(ctx, desc, offset)
		b.current = rc
		return slotted{cancelling{b, cancel}, release}, nil
	}
	g := &ranges{
		size: desc.Size, length: r.client.opts.Ranges.piece(), atOnce: r.client.opts.Ranges.AtOnce, next: offset, offset: offset, cancel: cancel,
		slot:  func() (func(), error) { return r.slot(rctx) },
		piece: func(at span) *body { return r.pieceOf(rctx, desc, at) },
		single: func(offset int64) (io.ReadCloser, error) {
			release, err := r.slot(ctx)
			if err != nil {
				return nil, err
			}
			rc, err := r.fetchWhole(ctx, desc, offset, release)
			if err != nil {
				release()
			}
			return rc, err
		},
	}
	g.start(rc, release)
	return g, nil
}

// pieceOf returns a transfer of a part, which has not started. It fails if the response has the whole content.
func (r *Repository) pieceOf(ctx context.Context, desc ocispec.Descriptor, at span) *body {
	b := r.body(ctx, desc, at.begin)
	b.size = at.end
	b.open = func(offset int64) (io.ReadCloser, error) {
		rc, partial, err := r.open(ctx, desc, span{offset, at.end})
		if err == nil && !partial {
			return nil, errors.Join(errNoRanges, rc.Close())
		}
		return rc, err
	}
	return b
}

// cancelling cancels a context when it is closed.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (c cancelling) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// start starts the next piece. current and release belong to one that is already being answered; or nil.
func (g *ranges) start(current io.ReadCloser, release func()) {
	p := &piece{at: span{g.next, min(g.next+g.length, g.size)}, done: make(chan struct{})}
	if n := len(g.free); n > 0 {
		p.buf, g.free = g.free[n-1], g.free[:n-1]
	} else {
		p.buf = make([]byte, g.length)
	}
	p.buf = p.buf[:p.at.end-p.at.begin]
	g.next = p.at.end
	g.queue = append(g.queue, p)
	g.wg.Go(func() {
		defer close(p.done)
		if release == nil {
			if release, p.err = g.slot(); p.err != nil {
				return
			}
		}
		defer release()
		p.err = g.fetch(p, current)
	})
}

// fetch reads a piece, again if its connection breaks.
func (g *ranges) fetch(p *piece, current io.ReadCloser) (err error) {
	b := g.piece(p.at)
	if b.current = current; current == nil {
		if b.current, err = b.open(p.at.begin); err != nil {
			return err
		}
	}
	_, err = io.ReadFull(b, p.buf)
	return errors.Join(err, b.Close())
}

// Read implements io.Reader.
func (g *ranges) Read(p []byte) (int, error) {
	for len(g.rest) == 0 {
		if g.fallback != nil {
			return g.fallback.Read(p)
		}
		if g.offset == g.size {
			return 0, io.EOF
		}
		if g.err == nil {
			g.err = g.take()
		}
		if g.err != nil {
			return 0, g.err
		}
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	g.offset += int64(n)
	return n, nil
}

// take waits for the next piece, after starting the following ones.
func (g *ranges) take() error {
	if g.buf != nil {
		g.free, g.buf = append(g.free, g.buf[:g.length]), nil
	}
	for len(g.queue) < g.atOnce && g.next < g.size {
		g.start(nil, nil)
	}
	p := g.queue[0]
	g.queue = g.queue[1:]
	<-p.done // it ends with the context
	if errors.Is(p.err, errNoRanges) {
		g.stop()
		g.fallback, p.err = g.single(g.offset)
		return p.err
	}
	if p.err != nil {
		return p.err
	}
	g.buf, g.rest = p.buf, p.buf
	return nil
}

// stop ends the requests.
func (g *ranges) stop() {
	g.cancel()
	g.wg.Wait()
	g.queue = nil
}

// Close implements io.Closer.
func (g *ranges) Close() error {
	g.stop()
	if g.fallback != nil {
		return g.fallback.Close()
	}
	return nil
}
