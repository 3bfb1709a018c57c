package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
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
	// Cursor grows with every event; pass it to continue after the event.
	Cursor    uint64
	Time      time.Time
	Namespace string
	Topic     string
	// TypeURL and Value are the event's message as published; Fields decodes it.
	TypeURL string
	Value   []byte
}

// EventsRequest selects events; the zero value means those of this namespace from now
// on.
type EventsRequest struct {
	// Cursor: start with the event after this one.
	Cursor uint64
	// FromStart: start with the oldest event of the log.
	FromStart bool
	// Filters in containerd's syntax over topic, namespace and event fields; several mean or.
	Filters       []string
	AllNamespaces bool
}

// Events iterates over events until ctx ends or the loop is left. It survives a restart of the daemon
// and continues after the last event returned. Any other error is returned once, as the last
// element; a cursor older than the log is errdefs.ErrOutOfRange.
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

// follow subscribes once and advances the request's cursor.
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
			// The daemon is stopping, or the loop was too slow for the stream; it continues from the
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
