package api

import (
	"context"
	"fmt"
	"time"

	api "github.com/containerd/containerd/api/services/events/v1"
	ttrpcapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/proto/rpc"
)

// eventsService is containerd.services.events.v1, and the part of it that shims call over ttrpc,
// containerd.services.events.ttrpc.v1.
type eventsService struct {
	hub *subscribe.Hub
}

func (s eventsService) Publish(ctx context.Context, req *api.PublishRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.hub.Publish(events.Event{
		Timestamp: time.Now().UTC(), Namespace: ns, Topic: req.GetTopic(),
		TypeURL: req.GetEvent().GetTypeUrl(), Value: req.GetEvent().GetValue(),
	})
}

func (s eventsService) forward(ctx context.Context, e *apitypes.Envelope) error {
	if err := access.Allow(ctx, e.GetNamespace()); err != nil {
		return err
	}
	if e.GetEvent() == nil {
		return fmt.Errorf("forward %s: envelope without an event: %w", e.GetTopic(), errdefs.ErrInvalidArgument)
	}
	return s.hub.Forward(events.Event{
		Timestamp: e.GetTimestamp().AsTime(), Namespace: e.GetNamespace(), Topic: e.GetTopic(),
		TypeURL: e.GetEvent().GetTypeUrl(), Value: e.GetEvent().GetValue(),
	})
}

func (s eventsService) Forward(ctx context.Context, req *api.ForwardRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.forward(ctx, req.GetEnvelope())
}

func (s eventsService) subscribe(ctx context.Context, req *api.SubscribeRequest, send func(*apitypes.Envelope) error) error {
	err := s.hub.Subscribe(ctx, subscribe.Subscription{Within: access.Within(ctx), Live: true, Filters: req.GetFilters()}, func(e events.Event) error {
		return send(&apitypes.Envelope{
			Timestamp: wire.Timestamp(e.Timestamp), Namespace: e.Namespace, Topic: e.Topic,
			Event: &anypb.Any{TypeUrl: e.TypeURL, Value: e.Value},
		})
	})
	return rpc.ToWire(err)
}

type eventsGRPC struct {
	eventsService
	api.UnsafeEventsServer
}

var _ api.EventsServer = eventsGRPC{}

func (s eventsGRPC) Subscribe(req *api.SubscribeRequest, stream api.Events_SubscribeServer) error {
	return s.subscribe(stream.Context(), req, stream.Send)
}

type eventsTTRPC struct{ eventsService }

var _ api.TTRPCEventsService = eventsTTRPC{}

func (s eventsTTRPC) Subscribe(ctx context.Context, req *api.SubscribeRequest, stream api.TTRPCEvents_SubscribeServer) error {
	return s.subscribe(ctx, req, stream.Send)
}

// shimEvents is where shims forward to.
type shimEvents struct{ eventsService }

var _ ttrpcapi.TTRPCEventsService = shimEvents{}

func (s shimEvents) Forward(ctx context.Context, req *ttrpcapi.ForwardRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.forward(ctx, req.GetEnvelope())
}
