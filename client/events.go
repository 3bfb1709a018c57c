package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
)

// Topics of the events about tasks.
const (
	TopicCreate      = "/tasks/create"
	TopicStart       = "/tasks/start"
	TopicExit        = "/tasks/exit"
	TopicDelete      = "/tasks/delete"
	TopicOOM         = "/tasks/oom"
	TopicExecAdded   = "/tasks/exec-added"
	TopicExecStarted = "/tasks/exec-started"
	TopicPaused      = "/tasks/paused"
	TopicResumed     = "/tasks/resumed"
)

// Event is one entry of the daemon's event log.
type Event struct {
	// Cursor grows by every event; hand it back to go on after it.
	Cursor    uint64
	Time      time.Time
	Namespace string
	Topic     string
	// TypeURL and Value are the event's message as it was published; Fields decodes it.
	TypeURL string
	Value   []byte
}

// EventsRequest says which events are wanted; the zero value means those of this namespace from now
// on.
type EventsRequest struct {
	// Cursor: begin with the event after this one.
	Cursor uint64
	// FromStart: begin with the oldest that is kept.
	FromStart bool
	// Filters in containerd's syntax over topic, namespace and event fields; several mean or.
	Filters       []string
	AllNamespaces bool
}

// Events iterates over events until ctx ends or the loop is left. A restart of the daemon does not
// end it: it goes on after the last event that it gave. Any other error is given once, as the last
// thing; a cursor older than what is kept is errdefs.ErrOutOfRange.
func (c *Client) Events(ctx context.Context, r EventsRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		left := errors.New("left")
		err := c.persist(ctx, func() error {
			return c.follow(ctx, &r, func(e Event) error {
				if !yield(e, nil) {
					return left
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, left) && ctx.Err() == nil {
			yield(Event{}, about("follow events", "", err))
		}
	}
}

// follow subscribes once and moves the request's cursor along.
func (c *Client) follow(ctx context.Context, r *EventsRequest, each func(Event) error) error {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return err
	}
	defer c.conns.put(conn, false)
	s, err := rpc.OpenServerStream[cleatapi.Event](ctx, conn.ttrpc, cleatapi.EventsService, "Subscribe",
		&cleatapi.SubscribeRequest{
			Cursor: r.Cursor, FromStart: r.FromStart, Filters: r.Filters, AllNamespaces: r.AllNamespaces,
			Namespace: c.namespace,
		})
	if err != nil {
		return err
	}
	for {
		m, err := s.Receive(ctx)
		if errors.Is(err, io.EOF) || errors.Is(err, ttrpc.ErrStreamFull) {
			// The daemon is stopping, or the loop was too slow for the stream; it goes on from the
			// cursor.
			return fmt.Errorf("receive event: %w: %w", err, errdefs.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		e := Event{Cursor: m.Cursor, Time: m.Timestamp.Time(), Namespace: m.Namespace, Topic: m.Topic}
		if m.Event != nil {
			e.TypeURL, e.Value = m.Event.TypeUrl, m.Event.Value
		}
		if err := each(e); err != nil {
			return err
		}
		r.Cursor, r.FromStart = e.Cursor, false
	}
}
