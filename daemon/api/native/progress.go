package native

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// progressEvery is the interval between reports of progress to a client.
const progressEvery = 200 * time.Millisecond

// progress gathers the progress of the parts of an image that is converted, and reports changes to a client.
type progress struct {
	mu      sync.Mutex
	items   map[digest.Digest]*cleatapi.TransferItem
	changed []digest.Digest // in order, each once
	marked  map[digest.Digest]bool
}

func newProgress() *progress {
	return &progress{items: make(map[digest.Digest]*cleatapi.TransferItem), marked: make(map[digest.Digest]bool)}
}

// Part notes how far a part has come. Bytes that were all there stay so.
func (p *progress) Part(desc ocispec.Descriptor, state image.State, done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.items[desc.Digest]
	if it == nil {
		it = &cleatapi.TransferItem{Digest: desc.Digest.String(), MediaType: desc.MediaType, Total: desc.Size}
		p.items[desc.Digest] = it
	}
	it.State = string(state)
	it.Done = done
	if !p.marked[desc.Digest] {
		p.marked[desc.Digest] = true
		p.changed = append(p.changed, desc.Digest)
	}
}

// take returns what changed since it was called before.
func (p *progress) take() []*cleatapi.TransferItem {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*cleatapi.TransferItem, len(p.changed))
	for i, d := range p.changed {
		it := *p.items[d]
		out[i] = &it
	}
	p.changed = nil
	clear(p.marked)
	return out
}

// transferring runs do and reports its progress to the client: send is called with what changed, now and
// then, and never by two at the same time. A client that is gone ends do.
func transferring(ctx context.Context, send func(*cleatapi.TransferProgress) error, do func(context.Context, *progress) (*cleatapi.Image, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := newProgress()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if items := p.take(); len(items) > 0 {
				if err := send(&cleatapi.TransferProgress{Items: items}); err != nil {
					cancel(err)
					return
				}
			}
		}
	})
	img, err := do(ctx, p)
	close(done)
	wg.Wait()
	if err != nil {
		return err
	}
	return send(&cleatapi.TransferProgress{Items: p.take(), Image: img})
}
