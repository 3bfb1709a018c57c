package subscribe

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/events"
)

// Publish appends an event that a client sent.
func (h *Hub) Publish(e events.Event) error {
	if err := announce.Valid(e); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if e.TypeURL == "" {
		return fmt.Errorf("publish %s: event without a type: %w", e.Topic, errdefs.ErrInvalidArgument)
	}
	if _, err := h.log.Append(e); err != nil {
		return fmt.Errorf("publish %s: %w", e.Topic, err)
	}
	return nil
}

// Forward takes an event from a shim. Its payload may be empty: only the topics of tasks say more of it.
func (h *Hub) Forward(e events.Event) error {
	if err := announce.Valid(e); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return h.tasks.Observe(e)
}
