package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/streaming/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/proto/rpc"
)

// streaming is containerd.services.streaming.v1: streams that wait for a call to come, daemon/streams has
// them.
type streaming struct{ streams *streams.Manager }

type streamingGRPC struct {
	streaming
	api.UnsafeStreamingServer
}

type streamingTTRPC struct{ streaming }

var (
	_ api.StreamingServer       = streamingGRPC{}
	_ api.TTRPCStreamingService = streamingTTRPC{}
)

func (s streamingGRPC) Stream(stream api.Streaming_StreamServer) error {
	ns, err := access.NamespaceOf(stream.Context())
	if err != nil {
		return rpc.ToWire(err)
	}
	return s.stream(stream.Context(), namespaceScope(ns), stream)
}

// Stream serves one on ttrpc, whose clients send no metadata with a stream. One without a namespace
// belongs to its process, and waits for a call of the same.
func (s streamingTTRPC) Stream(ctx context.Context, stream api.TTRPCStreaming_StreamServer) error {
	scope := peerScope(ctx)
	if _, ok := ttrpc.GetMetadataValue(ctx, access.TTRPCNamespace); ok || scope == "" {
		ns, err := access.NamespaceOf(ctx)
		if err != nil {
			return rpc.ToWire(err)
		}
		scope = namespaceScope(ns)
	}
	return s.stream(ctx, scope, stream)
}

func (s streaming) stream(ctx context.Context, scope string, wire streams.Wire) (err error) {
	defer func() { err = rpc.ToWire(err) }()
	first, err := wire.Recv()
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	var init api.StreamInit
	if !first.MessageIs(&init) {
		return fmt.Errorf("open stream: the first message is of the type %.100q, want StreamInit: %w", first.GetTypeUrl(), errdefs.ErrInvalidArgument)
	}
	if err := decode(first, &init); err != nil {
		return err
	}
	return s.streams.Serve(ctx, scope, init.GetID(), leaving{wire})
}

// leaving is a stream whose errors are those of a client that has left.
type leaving struct{ streams.Wire }

// Recv implements streams.Wire.
func (l leaving) Recv() (*anypb.Any, error) {
	a, err := l.Wire.Recv()
	return a, gone(err)
}

// Send implements streams.Wire.
func (l leaving) Send(a *anypb.Any) error { return gone(l.Wire.Send(a)) }

func gone(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("its client has left: %w: %w", err, errdefs.ErrUnavailable)
}

// The scopes of streams.
func namespaceScope(ns string) string { return "namespace " + ns }

func peerScope(ctx context.Context) string {
	if p := access.PeerOf(ctx); p != nil {
		return fmt.Sprintf("process %d of user %d", p.Pid, p.UID)
	}
	return ""
}
