package image

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/content"
)

// arrival is a layer on its way here.
type arrival struct {
	begun  chan struct{} // closed when writer is set
	here   chan struct{} // closed when it is a blob
	writer BlobWriter
}

func newArrival() *arrival {
	return &arrival{begun: make(chan struct{}), here: make(chan struct{})}
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
			close(f.arrivals[l.Digest].here)
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		err = f.allHere(ctx)
	}
	return err
}

// allHere is for a caller who left before all was begun: errgroup ends its context in any case.
func (f *Fetching) allHere(ctx context.Context) error {
	for _, a := range f.arrivals {
		select {
		case <-a.here:
		default:
			return context.Cause(ctx)
		}
	}
	return nil
}

// Wait returns when a layer is here. It ends with ctx, which has to end when Layers fails.
func (f *Fetching) Wait(ctx context.Context, desc ocispec.Descriptor) error {
	a, ok := f.arrivals[desc.Digest]
	if !ok {
		return nil // not one of those that are fetched
	}
	select {
	case <-a.here:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stream waits until a layer is on its way and returns a reader of it, not verified; nil where it is here.
// What was read is only the layer's once Wait has returned. The caller closes it. It ends with ctx, as
// Wait does.
func (f *Fetching) Stream(ctx context.Context, desc ocispec.Descriptor) (*content.Follower, error) {
	a, ok := f.arrivals[desc.Digest]
	if !ok {
		return nil, nil //nolint:nilnil // it is here
	}
	select {
	case <-a.here:
		return nil, nil //nolint:nilnil // it is here
	case <-a.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s, err := a.writer.Follow()
	if err != nil { // its writer has ended just now
		return nil, f.Wait(ctx, desc)
	}
	return s, nil
}
