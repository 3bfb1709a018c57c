package image

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/content"
)

// arrival is a layer that is being fetched.
type arrival struct {
	begun   chan struct{} // closed when writer is set
	fetched chan struct{} // closed when it is committed as a blob
	writer  BlobWriter
}

func newArrival() *arrival {
	return &arrival{begun: make(chan struct{}), fetched: make(chan struct{})}
}

// Layers fetches the layers, several at the same time and the lowest first.
func (f *Fetching) Layers(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opts.Parallel)
	for _, l := range f.layers {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := f.blob(ctx, l, f.arrivals[l.Digest]); err != nil {
				return err
			}
			close(f.arrivals[l.Digest].fetched)
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		err = f.checkFetched(ctx)
	}
	return err
}

// checkFetched returns an error if ctx ended before all were started: errgroup ends its own context in any case.
func (f *Fetching) checkFetched(ctx context.Context) error {
	for _, a := range f.arrivals {
		select {
		case <-a.fetched:
		default:
			return context.Cause(ctx)
		}
	}
	return nil
}

// Wait returns when a layer is fetched. It ends with ctx, which has to end when Layers fails.
func (f *Fetching) Wait(ctx context.Context, desc ocispec.Descriptor) error {
	a, ok := f.arrivals[desc.Digest]
	if !ok {
		return nil // not fetched by this call
	}
	select {
	case <-a.fetched:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stream waits until the ingest of a layer is open and returns a reader of it, not verified; nil if the layer
// is a local blob. The bytes read are known to be the layer's only once Wait has returned. The caller closes
// the reader. It ends with ctx, as Wait does.
func (f *Fetching) Stream(ctx context.Context, desc ocispec.Descriptor) (*content.Follower, error) {
	a, ok := f.arrivals[desc.Digest]
	if !ok {
		return nil, nil // it is local
	}
	select {
	case <-a.fetched:
		return nil, nil // it is local
	case <-a.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s, err := a.writer.Follow()
	if err != nil { // its writer has just ended
		return nil, f.Wait(ctx, desc)
	}
	return s, nil
}
