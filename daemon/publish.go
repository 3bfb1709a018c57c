package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxPublished bounds an event on standard input.
const maxPublished = 4 << 20

// Publish forwards one event to the daemon at a gRPC address. Shims that have cleatd as their
// -publish-binary run it for this. event holds a protobuf Any.
func Publish(ctx context.Context, address, namespace, topic string, event io.Reader) (err error) {
	if namespace == "" || topic == "" {
		return fmt.Errorf("publish: --namespace and --topic are required: %w", errdefs.ErrInvalidArgument)
	}
	data, err := io.ReadAll(io.LimitReader(event, maxPublished+1))
	if err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	if len(data) > maxPublished {
		return fmt.Errorf("read event: more than %d bytes: %w", maxPublished, errdefs.ErrInvalidArgument)
	}
	var payload anypb.Any
	if err := proto.Unmarshal(data, &payload); err != nil {
		return fmt.Errorf("read event: standard input is not a protobuf Any: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(address, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	_, err = eventsapi.NewEventsClient(conn).Forward(ctx, &eventsapi.ForwardRequest{Envelope: &apitypes.Envelope{
		Timestamp: timestamppb.Now(), Namespace: namespace, Topic: topic, Event: &payload,
	}})
	if err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}
