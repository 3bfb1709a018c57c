package service

import (
	"fmt"
	"time"

	apievents "github.com/containerd/containerd/api/events"
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

// publish appends the event of a change that was committed without it: a commit of its own would
// cost a sync. The change stands whether or not that works, so a failure is logged.
func (s *Service) publish(namespace, topic string, msg proto.Message) {
	data, err := proto.Marshal(msg)
	if err == nil {
		_, err = s.Events.Append(events.Event{
			Timestamp: time.Now().UTC(), Namespace: namespace, Topic: topic,
			TypeURL: string(msg.ProtoReflect().Descriptor().FullName()), Value: data,
		})
	}
	if err != nil {
		s.Log.Error("cannot publish an event", "topic", topic, "namespace", namespace, "error", err)
	}
}

// Publish appends an event that a client sent.
func (s *Service) Publish(e events.Event) error {
	if _, err := s.Events.Append(e); err != nil {
		return fmt.Errorf("publish %s: %w", e.Topic, err)
	}
	return nil
}

// Forward takes an event from a shim.
func (s *Service) Forward(e events.Event) error { return s.Runtime.Observe(e) }

func containerCreated(c metadata.Container) *apievents.ContainerCreate {
	e := &apievents.ContainerCreate{
		ID: c.ID, Image: c.Image, Runtime: &apievents.ContainerCreate_Runtime{Name: c.Runtime.Name},
	}
	if o := c.Runtime.Options; o != nil {
		e.Runtime.Options = &anypb.Any{TypeUrl: o.TypeURL, Value: o.Value}
	}
	return e
}
