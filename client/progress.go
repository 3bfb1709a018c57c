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

// progressEvery is how often a caller is told of progress.
const progressEvery = 200 * time.Millisecond

// eventSaved is the event of a name that stands for an image now.
const eventSaved = "saved"

// follower receives the progress of a transfer as fast as it comes, and tells of it at its own pace.
type follower struct {
	progress func([]Part)
	told     told
	done     chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed []Part         // in order, each part once
	at      map[string]int // where in changed, by digest
}

// newFollower returns a follower; call finish.
func newFollower(progress func([]Part)) *follower {
	f := &follower{progress: progress, done: make(chan struct{}), at: make(map[string]int)}
	if progress != nil {
		f.wg.Go(f.tell)
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
			f.told.saved = append(f.told.saved, m.Name)
		}
	case m.Desc.Annotations[cleatapi.NameAnnotation] != "" && m.Name == "":
		f.told.pushed = m.Desc
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

// tell calls progress now and then, until finish.
func (f *follower) tell() {
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

// finish tells of what is left.
func (f *follower) finish() {
	close(f.done)
	f.wg.Wait()
}
