// Package streams manages the streams that clients open for later calls: a client opens one under an id of
// its choice, and names it in a call, which takes it.
//
// A stream belongs to a scope, a namespace or a client, and is not visible in another. It is taken once.
// It ends when its taker closes it, when its client disconnects, or when no call takes it in time. The number of
// waiting streams in a scope is bounded.
//
// Reader and Writer carry bytes over a stream, in messages within the receiver's window.
// Called by daemon/api/transfer/streaming.go, which has the transport, and daemon/api/transfer/service.go.
package streams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Options of a Manager; the zero value is right for a daemon.
type Options struct {
	// Wait is how long a stream may wait for a call that takes it; 0 for a minute.
	Wait time.Duration
	// Most is how many may wait in a scope; 0 for 1,000.
	Most int
}

const (
	defaultWait = time.Minute
	defaultMost = 1000
	maxID       = 256
)

// Wire is a stream of a transport. Recv returns io.EOF if the client has ended its side, and another
// error if it has disconnected.
type Wire interface {
	Send(*anypb.Any) error
	Recv() (*anypb.Any, error)
}

// Manager manages the open streams. Its methods may be called concurrently.
type Manager struct {
	opts Options

	mu      sync.Mutex
	waiting map[string]int // of a scope
	streams map[key]*Stream
}

type key struct{ scope, id string }

// New returns a Manager.
func New(opts Options) *Manager {
	if opts.Wait == 0 {
		opts.Wait = defaultWait
	}
	if opts.Most == 0 {
		opts.Most = defaultMost
	}
	return &Manager{opts: opts, waiting: make(map[string]int), streams: make(map[key]*Stream)}
}

// Serve registers a stream under an id, acknowledges it to its client, and returns when it has ended, with the error
// that its taker closed it with. Already exists if the id is in use, resource exhausted if too many wait.
func (m *Manager) Serve(ctx context.Context, scope, id string, wire Wire) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("open stream: id of %d bytes, want 1 to %d: %w", len(id), maxID, errdefs.ErrInvalidArgument)
	}
	s := &Stream{id: id, wire: wire, ready: make(chan struct{}), taken: make(chan struct{}), done: make(chan struct{})}
	k := key{scope, id}
	s.forget = func() { m.remove(k, s) }
	if err := m.add(k, s); err != nil {
		return err
	}
	defer s.forget()
	err := s.Send(&emptypb.Empty{})
	close(s.ready)
	if err != nil {
		return fmt.Errorf("answer stream %s: %w", id, err)
	}
	timer := time.NewTimer(m.opts.Wait)
	defer timer.Stop()
	select {
	case <-s.taken:
	case <-ctx.Done():
		if m.remove(k, s) {
			return ctx.Err()
		}
	case <-timer.C:
		if m.remove(k, s) {
			return fmt.Errorf("stream %s: not taken by a call within %v: %w", id, m.opts.Wait, errdefs.ErrUnavailable)
		}
	}
	<-s.done // the taker notices a disconnected client by its errors
	return s.err
}

func (m *Manager) add(k key, s *Stream) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[k] != nil {
		return fmt.Errorf("stream %s: %w", k.id, errdefs.ErrAlreadyExists)
	}
	if m.waiting[k.scope] >= m.opts.Most {
		return fmt.Errorf("stream %s: %d others are already waiting: %w", k.id, m.opts.Most, errdefs.ErrResourceExhausted)
	}
	m.streams[k] = s
	m.waiting[k.scope]++
	return nil
}

// remove removes a stream, and reports whether it was waiting.
func (m *Manager) remove(k key, s *Stream) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[k] != s {
		return false
	}
	delete(m.streams, k)
	return m.takenLocked(k.scope, s)
}

// takenLocked ends the wait of a stream, and reports whether it was waiting.
func (m *Manager) takenLocked(scope string, s *Stream) bool {
	select {
	case <-s.taken:
		return false
	default:
	}
	close(s.taken)
	if m.waiting[scope]--; m.waiting[scope] == 0 {
		delete(m.waiting, scope)
	}
	return true
}

// Take returns the stream of an id in the first of the scopes that has it. Not found if none does,
// failed precondition if another call has taken it. The caller closes it.
func (m *Manager) Take(id string, scopes ...string) (*Stream, error) {
	s, err := m.take(id, scopes)
	if err == nil {
		<-s.ready
	}
	return s, err
}

func (m *Manager) take(id string, scopes []string) (*Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, scope := range scopes {
		s := m.streams[key{scope, id}]
		if s == nil {
			continue
		}
		if !m.takenLocked(scope, s) {
			return nil, fmt.Errorf("stream %s: taken by another call: %w", id, errdefs.ErrFailedPrecondition)
		}
		return s, nil
	}
	return nil, fmt.Errorf("stream %s: not open in this namespace: %w", id, errdefs.ErrNotFound)
}

// Stream is a stream that a call has taken. One goroutine may send while another receives.
type Stream struct {
	id   string
	wire Wire

	forget func() // frees the id

	ready chan struct{} // closed once it is acknowledged to its client
	taken chan struct{}
	once  sync.Once
	done  chan struct{}
	err   error // before done
}

var errClosed = errors.New("stream is closed")

// ID returns the id that the client chose.
func (s *Stream) ID() string { return s.id }

// Send sends a message. It blocks while the client accepts none.
func (s *Stream) Send(m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("stream %s: encode message: %w", s.id, err)
	}
	select {
	case <-s.done:
		return fmt.Errorf("send to stream %s: %w", s.id, errClosed)
	default:
	}
	if err := s.wire.Send(&anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: raw}); err != nil {
		return fmt.Errorf("send to stream %s: %w", s.id, err)
	}
	return nil
}

// Recv receives a message. io.EOF means that the client has ended its side, another error that it has disconnected.
func (s *Stream) Recv() (*anypb.Any, error) { return s.wire.Recv() }

// Into receives a message of m's type.
func (s *Stream) Into(m proto.Message) error {
	a, err := s.Recv()
	if err != nil {
		return err
	}
	if !a.MessageIs(m) {
		return fmt.Errorf("stream %s: message of the type %.100q, want %s: %w", s.id, a.GetTypeUrl(), m.ProtoReflect().Descriptor().FullName(), errdefs.ErrInvalidArgument)
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("stream %s: decode %s: %w: %w", s.id, m.ProtoReflect().Descriptor().FullName(), err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Close ends the stream: normally with nil, as broken with an error. A running Send or Recv ends,
// and the id is free. Only the first call counts.
func (s *Stream) Close(err error) {
	s.once.Do(func() {
		s.forget()
		s.err = err
		close(s.done)
	})
}
