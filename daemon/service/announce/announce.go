// Package announce adds the events of changes to the transactions that make them.
package announce

import (
	"fmt"
	"strings"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/metadata"
)

// Add adds the event of a change to its transaction: it is published if and only if that is
// committed.
func Add(tx *metadata.Tx, namespace, topic string, msg proto.Message) error {
	data, err := proto.Marshal(msg)
	if err != nil {
		return fmt.Errorf("announce %s: %w", topic, err)
	}
	return tx.Publish(namespace, topic, metadata.Any{
		TypeURL: string(msg.ProtoReflect().Descriptor().FullName()), Value: data,
	})
}

// ContentDeleted announces a blob that a namespace no longer sees.
func ContentDeleted(tx *metadata.Tx, namespace string, d digest.Digest) error {
	return Add(tx, namespace, "/content/delete", &apievents.ContentDelete{Digest: d.String()})
}

// Collected announces the removal of a record by a collection.
func Collected(tx *metadata.Tx, r metadata.Removed) error {
	switch r.Kind {
	case metadata.KindImage:
		return Add(tx, r.Namespace, "/images/delete", &apievents.ImageDelete{Name: r.Name})
	case metadata.KindSnapshot:
		return Add(tx, r.Namespace, "/snapshot/remove", &apievents.SnapshotRemove{Key: r.Name, Snapshotter: r.Set})
	case metadata.KindContent:
		return ContentDeleted(tx, r.Namespace, digest.Digest(r.Name))
	default:
		return nil // the API has no event for it
	}
}

// Valid checks an event that came over the API: its topic is identifiers, each after a slash. The error
// is of the class invalid argument.
func Valid(e events.Event) error {
	if err := identifier.Check(e.Namespace); err != nil {
		return fmt.Errorf("namespace of an event: %w", err)
	}
	parts := strings.Split(e.Topic, "/")
	if len(parts) < 2 || parts[0] != "" {
		return fmt.Errorf("event topic %q: it begins with a slash, as in /tasks/exit: %w", e.Topic, errdefs.ErrInvalidArgument)
	}
	for _, p := range parts[1:] {
		if err := identifier.Check(p); err != nil {
			return fmt.Errorf("event topic %q: %w", e.Topic, err)
		}
	}
	return nil
}

// ContainerCreated returns the event of a container's creation.
func ContainerCreated(c metadata.Container) *apievents.ContainerCreate {
	e := &apievents.ContainerCreate{
		ID: c.ID, Image: c.Image, Runtime: &apievents.ContainerCreate_Runtime{Name: c.Runtime.Name},
	}
	if o := c.Runtime.Options; o != nil {
		e.Runtime.Options = &anypb.Any{TypeUrl: o.TypeURL, Value: o.Value}
	}
	return e
}
