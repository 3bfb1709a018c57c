package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/proto/rpc"
)

// mover is a client of the transfer service according to the published definitions, on either transport.
type mover struct {
	t        *testing.T
	ctx      context.Context
	open     func(ctx context.Context) (wireStream, error)
	transfer func(ctx context.Context, req *transferapi.TransferRequest) error
}

// wireStream is a stream of either transport.
type wireStream interface {
	Send(*anypb.Any) error
	Recv() (*anypb.Any, error)
	CloseSend() error
}

// movers returns a client in a namespace for each transport.
func (d *Daemon) movers(ns string) map[string]*mover {
	d.t.Helper()
	_, conn := d.grpc()
	grpcStreams, grpcTransfers := streamingapi.NewStreamingClient(conn), transferapi.NewTransferClient(conn)
	client, err := rpc.Dial(d.t.Context(), d.Address+".ttrpc")
	must(d.t, err)
	d.t.Cleanup(func() { must(d.t, client.Close()) })
	ttrpcStreams, ttrpcTransfers := streamingapi.NewTTRPCStreamingClient(client), transferapi.NewTTRPCTransferClient(client)
	return map[string]*mover{
		"gRPC": {
			d.t, metadata.AppendToOutgoingContext(d.t.Context(), "containerd-namespace", ns),
			func(ctx context.Context) (wireStream, error) { return grpcStreams.Stream(ctx) },
			func(ctx context.Context, req *transferapi.TransferRequest) error {
				_, err := grpcTransfers.Transfer(ctx, req)
				return err
			},
		},
		"ttrpc": {
			d.t, ttrpc.WithMetadata(d.t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {ns}}),
			func(ctx context.Context) (wireStream, error) { return ttrpcStreams.Stream(ctx) },
			func(ctx context.Context, req *transferapi.TransferRequest) error {
				_, err := ttrpcTransfers.Transfer(ctx, req)
				return err
			},
		},
	}
}

// named packs a message as clients do: the URL is the bare name of the type.
func named(m proto.Message) *anypb.Any {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil // the daemon refuses it
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: raw}
}

// own packs one of cleat's own ends.
func own(t *testing.T, typ string, m rpc.Message) *anypb.Any {
	t.Helper()
	raw, err := rpc.Marshal(m)
	must(t, err)
	return &anypb.Any{TypeUrl: typ, Value: raw}
}

// begin opens a stream with an id and reads the daemon's acknowledgement.
func (m *mover) begin(ctx context.Context, id string) (wireStream, error) {
	s, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Send(named(&streamingapi.StreamInit{ID: id})); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	ack, err := s.Recv()
	if err != nil {
		return nil, err
	}
	if !ack.MessageIs(&emptypb.Empty{}) {
		return nil, fmt.Errorf("acknowledged with %s", ack.GetTypeUrl())
	}
	return s, nil
}

// stream is begin with a new id.
func (m *mover) stream(prefix string) (string, wireStream) {
	m.t.Helper()
	id := prefix + "-" + rand.Text()
	s, err := m.begin(m.ctx, id)
	must(m.t, err)
	return id, s
}

// move transfers, and returns the progress in order.
func (m *mover) move(ctx context.Context, source, destination proto.Message) (events []*transfertypes.Progress, err error) {
	m.t.Helper()
	id, s := m.stream("progress")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := s.Recv()
			if err != nil {
				return
			}
			var p transfertypes.Progress
			if a.UnmarshalTo(&p) == nil {
				events = append(events, &p)
			}
		}
	})
	err = m.transfer(ctx, &transferapi.TransferRequest{
		Source: named(source), Destination: named(destination), Options: &transferapi.TransferOptions{ProgressStream: id},
	})
	wg.Wait()
	return events, err
}

// must is move, which must succeed.
func (m *mover) must(source, destination proto.Message) []*transfertypes.Progress {
	m.t.Helper()
	events, err := m.move(m.ctx, source, destination)
	must(m.t, err)
	return events
}

// give sends data on a stream as far as the window permits, and ends its side.
func give(s wireStream, data []byte) error {
	const chunk = 32 << 10
	window := 0
	for len(data) > 0 {
		for window <= 0 {
			a, err := s.Recv()
			if err != nil {
				return err
			}
			var u transfertypes.WindowUpdate
			if err := a.UnmarshalTo(&u); err != nil {
				return err
			}
			window += int(u.GetUpdate())
		}
		n := min(window, chunk, len(data))
		if err := s.Send(named(&transfertypes.Data{Data: data[:n]})); err != nil {
			return err
		}
		window -= n
		data = data[n:]
	}
	return s.CloseSend()
}

// receive returns the data of a stream, with this window.
func receive(s wireStream, window int32) (data []byte, err error) {
	if err := s.Send(named(&transfertypes.WindowUpdate{Update: window})); err != nil {
		return nil, err
	}
	left := int(window)
	for {
		a, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		var d transfertypes.Data
		if err := a.UnmarshalTo(&d); err != nil {
			return data, err
		}
		if left -= len(d.GetData()); left < 0 {
			return data, fmt.Errorf("%d bytes were sent beyond the window", -left)
		}
		data = append(data, d.GetData()...)
		if left == 0 {
			left = int(window)
			if err := s.Send(named(&transfertypes.WindowUpdate{Update: window})); err != nil {
				return data, err
			}
		}
	}
}

// answer answers requests for credentials on a stream until it ends, and returns the requests.
func (m *mover) answer(how *transfertypes.AuthResponse) (id string, asked func() []*transfertypes.AuthRequest) {
	m.t.Helper()
	id, s := m.stream("auth")
	var list []*transfertypes.AuthRequest
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := s.Recv()
			if err != nil {
				return
			}
			var req transfertypes.AuthRequest
			if a.UnmarshalTo(&req) != nil {
				return
			}
			list = append(list, &req)
			if s.Send(named(how)) != nil {
				return
			}
		}
	})
	return id, func() []*transfertypes.AuthRequest {
		wg.Wait()
		return list
	}
}

// export exports an image to an archive.
func (m *mover) export(name string, how *transfertypes.ImageExportStream) []byte {
	m.t.Helper()
	id, s := m.stream("export")
	how.Stream = id
	var data []byte
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if data, err = receive(s, 1<<20); err != nil {
			m.t.Errorf("receive archive: %v", err)
		}
	})
	m.must(&transfertypes.ImageStore{Name: name}, how)
	wg.Wait()
	return data
}

// bring imports an archive.
func (m *mover) bring(archive []byte, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore) []*transfertypes.Progress {
	m.t.Helper()
	events, err := m.tryBring(archive, how, store)
	must(m.t, err)
	return events
}

// tryBring imports an archive, which may fail.
func (m *mover) tryBring(
	archive []byte, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore,
) ([]*transfertypes.Progress, error) {
	m.t.Helper()
	id, s := m.stream("import")
	how.Stream = id
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := give(s, archive); err != nil {
			m.t.Errorf("send archive: %v", err)
		}
	})
	defer wg.Wait()
	return m.move(m.ctx, how, store)
}
