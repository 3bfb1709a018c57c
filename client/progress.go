package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// progressEvery is the interval of progress reports.
const progressEvery = 200 * time.Millisecond

// eventSaved is the event of a name that now refers to an image.
const eventSaved = "saved"

// follower receives the progress of a transfer as fast as it comes, and reports it at its own pace.
type follower struct {
	progress func([]Part)
	outcome  outcome
	done     chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed []Part         // in order, each part once
	at      map[string]int // where in changed, by digest
}

// newFollower returns a follower; its finish has to be called.
func newFollower(progress func([]Part)) *follower {
	f := &follower{progress: progress, done: make(chan struct{}), at: make(map[string]int)}
	if progress != nil {
		f.wg.Go(f.report)
	}
	return f
}

// follow receives until the stream ends.
func (f *follower) follow(ctx context.Context, s *duplex) error {
	for {
		a, err := s.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if a.TypeUrl != wire.ProgressType {
			continue
		}
		var m wire.Progress
		if err := m.Unmarshal(a.Value); err != nil {
			return fmt.Errorf("decode progress: %w", err)
		}
		f.take(&m)
	}
}

func (f *follower) take(m *wire.Progress) {
	switch {
	case m.Desc == nil:
		if m.Event == eventSaved {
			f.outcome.saved = append(f.outcome.saved, m.Name)
		}
	case m.Desc.Annotations[cleatapi.NameAnnotation] != "" && m.Name == "":
		f.outcome.pushed = m.Desc
	case f.progress != nil:
		f.put(Part{Digest: m.Desc.Digest, MediaType: m.Desc.MediaType, State: m.Event, Done: m.Progress, Total: m.Total})
	}
}

func (f *follower) put(p Part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i, ok := f.at[p.Digest]; ok {
		f.changed[i] = p
		return
	}
	f.at[p.Digest] = len(f.changed)
	f.changed = append(f.changed, p)
}

// report calls progress periodically, until finish.
func (f *follower) report() {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.done:
			f.flush()
			return
		case <-tick.C:
			f.flush()
		}
	}
}

func (f *follower) flush() {
	f.mu.Lock()
	parts := f.changed
	f.changed = nil
	clear(f.at)
	f.mu.Unlock()
	if len(parts) > 0 {
		f.progress(parts)
	}
}

// finish reports the rest.
func (f *follower) finish() {
	close(f.done)
	f.wg.Wait()
}
