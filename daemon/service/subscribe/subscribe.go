// Package subscribe receives events from clients and shims, and sends them to subscribers: those of the
// containerd API that return after a restart first get the exits of the time without a daemon (away.go).
package subscribe

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/runtime"
)

// Hub receives events and serves subscribers. Its methods may be called concurrently.
type Hub struct {
	log   *events.Log
	tasks *runtime.Manager
	away  away
}

// New returns the hub of an event log, as of the daemon's start.
func New(log *events.Log, tasks *runtime.Manager) *Hub {
	return &Hub{log: log, tasks: tasks, away: away{started: time.Now(), cursor: log.Cursor()}}
}

// Subscription says which events to send.
type Subscription struct {
	// Cursor is what to send the events after.
	Cursor uint64
	// FromStart sends all that the log still holds; Cursor is ignored.
	FromStart bool
	// Live sends what comes from now on; Cursor is ignored. Shortly after the daemon's start this
	// begins with the exits that happened while it was away (away.go).
	Live bool
	// Namespace limits to one; empty for all.
	Namespace string
	// Within limits to the namespaces that it accepts; nil for all.
	Within func(namespace string) bool
	// Filters are over topic, namespace and event.<field>.
	Filters []string
}

// Subscribe sends events until ctx ends, send fails, or the subscriber falls too far behind.
func (h *Hub) Subscribe(ctx context.Context, req Subscription, send func(events.Event) error) (err error) {
	match, err := filters.ParseAll(req.Filters...)
	if err != nil {
		return err
	}
	cursor := req.Cursor
	if req.FromStart {
		cursor = h.log.Oldest()
	}
	live := uint64(0) // up to here only what was missed is sent
	if req.Live {
		cursor = h.log.Cursor()
		if since, ok := h.away.since(time.Now(), h.log); ok {
			cursor, live = since, cursor
		}
	}
	sub, err := h.log.Subscribe(cursor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		if e.Cursor <= live && !h.away.missed(e, h.tasks.Get) {
			continue
		}
		if req.Namespace != "" && e.Namespace != req.Namespace || req.Within != nil && !req.Within(e.Namespace) || len(req.Filters) > 0 && !match.Match(&eventFields{event: e}) {
			continue
		}
		if err := send(e); err != nil {
			return err
		}
	}
}

// eventFields are what filters see of an event. The payload is decoded when a filter first asks
// for it.
type eventFields struct {
	event   events.Event
	payload protoreflect.Message
	decoded bool
}

// Field implements filters.Adaptor.
func (f *eventFields) Field(path []string) (string, bool) {
	switch path[0] {
	case "topic":
		return f.event.Topic, f.event.Topic != ""
	case "namespace":
		return f.event.Namespace, f.event.Namespace != ""
	case "event":
		return f.payloadField(path[1:])
	}
	return "", false
}

func (f *eventFields) payloadField(path []string) (string, bool) {
	if !f.decoded {
		f.decoded = true
		name := f.event.TypeURL[strings.LastIndexByte(f.event.TypeURL, '/')+1:]
		if mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name)); err == nil {
			m := mt.New()
			if proto.Unmarshal(f.event.Value, m.Interface()) == nil {
				f.payload = m
			}
		}
	}
	m := f.payload
	for m != nil && len(path) > 0 {
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
		if fd == nil {
			return "", false
		}
		path = path[1:]
		switch {
		case fd.IsMap() && fd.MapValue().Kind() == protoreflect.StringKind:
			key := protoreflect.ValueOfString(strings.Join(path, ".")).MapKey()
			v := m.Get(fd).Map().Get(key)
			return v.String(), v.IsValid()
		case fd.Kind() == protoreflect.MessageKind && !fd.IsList():
			m = m.Get(fd).Message()
		default:
			v := m.Get(fd).String()
			return v, len(path) == 0 && v != ""
		}
	}
	return "", false
}
