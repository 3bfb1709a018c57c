package transfer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

const (
	// amountEvery is the interval between reports of the bytes of a part.
	amountEvery = 100 * time.Millisecond
	// lastProgress bounds how long the end of a transfer waits for a client to read what is left.
	lastProgress = 5 * time.Second
)

// eventName is the published name of what becomes of a part.
func eventName(s image.State) string {
	switch s {
	case image.StateExists, image.StateMounted:
		return "already exists"
	case image.StateFetched, image.StatePushed:
		return "complete"
	case image.StateUnpacking:
		return "extracting"
	case image.StateUnpacked:
		return "extracted"
	default: // waiting, downloading, uploading
		return string(s)
	}
}

// partName is what clients know a part by.
func partName(desc ocispec.Descriptor) string {
	kind := "blob"
	switch {
	case image.IsIndex(desc.MediaType):
		kind = "index"
	case image.IsManifest(desc.MediaType):
		kind = "manifest"
	case image.IsLayer(desc.MediaType):
		kind = "layer"
	case strings.Contains(desc.MediaType, "config") || strings.HasPrefix(desc.MediaType, "application/vnd.docker.container.image."):
		kind = "config"
	}
	return kind + "-" + desc.Digest.String()
}

// watcher reports the progress of a transfer to a client, in order: each state of each part, and bytes
// now and then. A nil stream has no client.
type watcher struct {
	stream *streams.Stream
	own    bool // uses cleat's own names of states; set before anything is reported
	wg     sync.WaitGroup

	mu     sync.Mutex
	queue  []queued
	parts  map[digest.Digest]*part
	more   chan struct{} // has one while there is something in the queue
	closed bool
	gone   bool // the client takes no more
}

// part holds what was reported of a part of an image.
type part struct {
	parents []string
	state   image.State
	told    time.Time
	queued  *transfertypes.Progress // the last, where it was not sent yet
}

// queued is what is to be sent, and what it is about, or nil.
type queued struct {
	message *transfertypes.Progress
	part    *part
}

var _ transfer.Watcher = (*watcher)(nil)

func (w *watcher) eventName(s image.State) string {
	if w.own {
		return string(s)
	}
	return eventName(s)
}

// progress takes the stream for progress, "" for none. Close what it returns.
func (t *call) progress(ctx context.Context, id string) (*watcher, error) {
	w := &watcher{parts: make(map[digest.Digest]*part), more: make(chan struct{}, 1)}
	if id == "" {
		w.gone = true
		return w, nil
	}
	s, err := t.take(ctx, id)
	if err != nil {
		return nil, err
	}
	w.stream = s
	w.wg.Go(w.send)
	return w, nil
}

// Event implements service.Watcher.
func (w *watcher) Event(event, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.putLocked(&transfertypes.Progress{Event: event, Name: name}, nil)
}

// Pushed implements service.Watcher. An annotation of the descriptor has the name.
func (w *watcher) Pushed(name string, desc ocispec.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	desc.Annotations = map[string]string{cleatapi.NameAnnotation: name}
	w.putLocked(&transfertypes.Progress{Event: "Completed push to OCI Registry (" + name + ")", Desc: wire.ToDescriptor(desc)}, nil)
}

// Named implements service.Watcher. cleat's own client looks at parts alone, and at the names that are saved.
func (w *watcher) Named(event, name string, desc ocispec.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[desc.Digest]
	if p == nil {
		p = &part{}
		w.parts[desc.Digest] = p
	}
	if !slices.Contains(p.parents, name) && event != eventSaved {
		p.parents = append(p.parents, name)
	}
	switch {
	case !w.own:
		w.putLocked(&transfertypes.Progress{Event: event, Name: name, Desc: wire.ToDescriptor(desc)}, nil)
	case event == eventSaved:
		w.putLocked(&transfertypes.Progress{Event: event, Name: name}, nil)
	}
}

// eventSaved is what becomes of a name in the end.
const eventSaved = "saved"

// Found implements service.Watcher.
func (w *watcher) Found(desc, parent ocispec.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[desc.Digest]
	if p == nil {
		p = &part{}
		w.parts[desc.Digest] = p
	}
	if parent.Digest != "" && !slices.Contains(p.parents, partName(parent)) {
		p.parents = append(p.parents, partName(parent))
	}
}

// Part implements service.Watcher.
func (w *watcher) Part(desc ocispec.Descriptor, state image.State, done int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[desc.Digest]
	if p == nil {
		p = &part{}
		w.parts[desc.Digest] = p
	}
	m := &transfertypes.Progress{
		Event: w.eventName(state), Name: partName(desc), Parents: p.parents, Progress: done, Total: desc.Size, Desc: wire.ToDescriptor(desc),
	}
	if state == image.StateWaiting {
		m.Progress = 0
	}
	if p.state == state && state != image.StateWaiting {
		w.amountLocked(p, m)
		return
	}
	if p.state == "" && (state == image.StateFetching || state == image.StatePushing) {
		w.putLocked(&transfertypes.Progress{Event: "waiting", Name: m.Name, Parents: m.Parents, Total: m.Total, Desc: m.Desc}, nil)
	}
	p.state, p.told = state, time.Now()
	w.putLocked(m, p)
}

// amountLocked reports how many bytes are present, unless that was reported just now.
func (w *watcher) amountLocked(p *part, m *transfertypes.Progress) {
	if p.queued != nil {
		p.queued.Progress = m.GetProgress()
		return
	}
	if now := time.Now(); now.Sub(p.told) >= amountEvery {
		p.told = now
		w.putLocked(m, p)
	}
}

func (w *watcher) putLocked(m *transfertypes.Progress, p *part) {
	if w.gone || w.closed {
		return
	}
	if p != nil {
		p.queued = m
	}
	w.queue = append(w.queue, queued{m, p})
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// take returns the next message; nil where there is none.
func (w *watcher) take() (m *transfertypes.Progress, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) > 0 {
		q := w.queue[0]
		w.queue = w.queue[1:]
		if m = q.message; q.part != nil && q.part.queued == m {
			q.part.queued = nil // it is not changed any more
		}
	}
	return m, w.closed
}

// send sends what is queued until all was sent after the end, or the client takes no more.
func (w *watcher) send() {
	for {
		m, closed := w.take()
		switch {
		case m != nil:
			if err := w.stream.Send(m); err != nil { // the transfer continues without
				w.mu.Lock()
				w.gone, w.queue = true, nil
				w.mu.Unlock()
				return
			}
		case closed:
			return
		default:
			<-w.more
		}
	}
}

// close sends what is left and ends the stream.
func (w *watcher) close(ctx context.Context) {
	if w.stream == nil {
		return
	}
	w.mu.Lock()
	w.closed = true
	select {
	case w.more <- struct{}{}:
	default:
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lastProgress)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { w.stream.Close(nil) })
	w.wg.Wait()
	stop()
	w.stream.Close(nil)
}
