package service

import (
	"fmt"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/events"
)

// publish appends the event of a committed change to the log. The change stands whether or not
// that works, so a failure is logged rather than returned.
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

func containerCreated(id, image, runtimeName string) *apievents.ContainerCreate {
	return &apievents.ContainerCreate{
		ID: id, Image: image, Runtime: &apievents.ContainerCreate_Runtime{Name: runtimeName},
	}
}
