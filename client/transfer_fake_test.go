package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// asked is a transfer as received by a daemon, with the client's streams.
type asked struct {
	t                   *testing.T
	namespace           string
	source, destination *anypb.Any
	streams             map[string]ttrpc.StreamServer
	progress            string
}

// into decodes an end, which must be of a type.
func (a *asked) into(end *anypb.Any, typ string, m rpc.Message) {
	if end.GetTypeUrl() != typ {
		a.t.Errorf("an end of the type %s, want %s", end.GetTypeUrl(), typ)
	}
	if err := m.Unmarshal(end.GetValue()); err != nil {
		a.t.Error(err)
	}
}

// archive returns the path of an imported archive, and its destination.
func (a *asked) archive() (path string, to cleatapi.ImageStore) {
	var from cleatapi.ArchiveFile
	a.into(a.source, cleatapi.ArchiveFileType, &from)
	a.into(a.destination, cleatapi.ImageStoreType, &to)
	return from.Path, to
}

func (a *asked) report(events ...*transfertypes.Progress) error {
	for _, e := range events {
		if err := sendAny(a.streams[a.progress], e); err != nil {
			return err
		}
	}
	return nil
}

// ask asks for a credential on a stream.
func (a *asked) ask(id string, challenges ...string) (*transfertypes.AuthResponse, error) {
	s := a.streams[id]
	if s == nil {
		return nil, fmt.Errorf("stream %q: %w", id, errdefs.ErrNotFound)
	}
	if err := sendAny(s, &transfertypes.AuthRequest{Host: "h", Reference: "r", Wwwauthenticate: challenges}); err != nil {
		return nil, err
	}
	var in anypb.Any
	var out transfertypes.AuthResponse
	if err := s.RecvMsg(&in); err != nil {
		return nil, err
	}
	return &out, in.UnmarshalTo(&out)
}

func sendAny(s ttrpc.StreamServer, m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return s.SendMsg(&anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: raw})
}

// transferring is a daemon whose transfers a test defines, with the given images.
func transferring(t *testing.T, do func(context.Context, *asked) error, images ...*cleatapi.Image) *fake {
	var mu sync.Mutex
	open := make(map[string]ttrpc.StreamServer)
	ends := make(map[string]chan struct{})
	serve := func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
		var first anypb.Any
		var init streamingapi.StreamInit
		if err := s.RecvMsg(&first); err != nil {
			return nil, err
		}
		if err := first.UnmarshalTo(&init); err != nil {
			return nil, err
		}
		done := make(chan struct{})
		mu.Lock()
		open[init.GetID()], ends[init.GetID()] = s, done
		mu.Unlock()
		if err := sendAny(s, &emptypb.Empty{}); err != nil {
			return nil, err
		}
		select {
		case <-done:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	call := func(ctx context.Context, decode func(any) error) (any, error) {
		var req transferapi.TransferRequest
		if err := decode(&req); err != nil {
			return nil, err
		}
		mu.Lock()
		a := &asked{
			t: t, namespace: namespaceOf(ctx), source: req.GetSource(), destination: req.GetDestination(),
			streams: open, progress: req.GetOptions().GetProgressStream(),
		}
		mine := ends
		open, ends = make(map[string]ttrpc.StreamServer), make(map[string]chan struct{})
		mu.Unlock()
		err := do(ctx, a)
		for _, done := range mine {
			close(done)
		}
		return &emptypb.Empty{}, rpc.ToWire(err)
	}
	return newFake(t, map[string]*ttrpc.ServiceDesc{
		wire.StreamingService: {Streams: map[string]ttrpc.Stream{"Stream": {Handler: serve, StreamingClient: true, StreamingServer: true}}},
		wire.TransferService:  methods(map[string]ttrpc.Method{"Transfer": call}),
		cleatapi.ImagesService: methods(map[string]ttrpc.Method{
			"List": rpc.Unary(func(context.Context, *cleatapi.ListImagesRequest) (*cleatapi.ListImagesResponse, error) {
				return &cleatapi.ListImagesResponse{Images: images}, nil
			}),
		}),
	})
}
