package service

import (
	"fmt"
	"strings"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
)

// announce adds the event of a change to its transaction: it is published once that is committed,
// and never otherwise.
func announce(tx *metadata.Tx, namespace, topic string, msg proto.Message) error {
	data, err := proto.Marshal(msg)
	if err != nil {
		return fmt.Errorf("announce %s: %w", topic, err)
	}
	return tx.Publish(namespace, topic, metadata.Any{
		TypeURL: string(msg.ProtoReflect().Descriptor().FullName()), Value: data,
	})
}

// announceDeleted announces a blob that a namespace no longer sees.
func announceDeleted(tx *metadata.Tx, namespace string, d digest.Digest) error {
	return announce(tx, namespace, "/content/delete", &apievents.ContentDelete{Digest: d.String()})
}

// announceCollected announces what a collection takes off the records.
func announceCollected(tx *metadata.Tx, r metadata.Removed) error {
	switch r.Kind {
	case metadata.KindImage:
		return announce(tx, r.Namespace, "/images/delete", &apievents.ImageDelete{Name: r.Name})
	case metadata.KindSnapshot:
		return announce(tx, r.Namespace, "/snapshot/remove", &apievents.SnapshotRemove{Key: r.Name, Snapshotter: r.Set})
	case metadata.KindContent:
		return announceDeleted(tx, r.Namespace, digest.Digest(r.Name))
	default:
		return nil // the API has no event for it
	}
}

// validEvent checks an event that came over the API: its topic is identifiers, each after a slash. The error
// is of the class invalid argument.
func validEvent(e events.Event) error {
	if err := metadata.ValidateID(e.Namespace); err != nil {
		return fmt.Errorf("namespace of an event: %w", err)
	}
	parts := strings.Split(e.Topic, "/")
	if len(parts) < 2 || parts[0] != "" {
		return fmt.Errorf("event topic %q: it begins with a slash, as in /tasks/exit: %w", e.Topic, errdefs.ErrInvalidArgument)
	}
	for _, p := range parts[1:] {
		if err := metadata.ValidateID(p); err != nil {
			return fmt.Errorf("event topic %q: %w", e.Topic, err)
		}
	}
	return nil
}

// Publish appends an event that a client sent.
func (s *Service) Publish(e events.Event) error {
	if err := validEvent(e); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if e.TypeURL == "" {
		return fmt.Errorf("publish %s: event without a type: %w", e.Topic, errdefs.ErrInvalidArgument)
	}
	if _, err := s.Events.Append(e); err != nil {
		return fmt.Errorf("publish %s: %w", e.Topic, err)
	}
	return nil
}

// Forward takes an event from a shim. Its payload may be empty: only the topics of tasks say more of it.
func (s *Service) Forward(e events.Event) error {
	if err := validEvent(e); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return s.Runtime.Observe(e)
}

func containerCreated(c metadata.Container) *apievents.ContainerCreate {
	e := &apievents.ContainerCreate{
		ID: c.ID, Image: c.Image, Runtime: &apievents.ContainerCreate_Runtime{Name: c.Runtime.Name},
	}
	if o := c.Runtime.Options; o != nil {
		e.Runtime.Options = &anypb.Any{TypeUrl: o.TypeURL, Value: o.Value}
	}
	return e
}
