package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"

	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// named packs a message as clients do: the URL is the bare name of the type.
func named(m proto.Message) *anypb.Any {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil // the daemon refuses it
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: raw}
}

// begin opens a stream with an id and reads the daemon's acknowledgement.
func begin(ctx context.Context, m *fixture.Mover, id string) (fixture.WireStream, error) {
	s, err := m.Open(ctx)
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
func stream(m *fixture.Mover, prefix string) (string, fixture.WireStream) {
	m.T.Helper()
	id := prefix + "-" + rand.Text()
	s, err := begin(m.Ctx, m, id)
	harness.Must(m.T, err)
	return id, s
}

// move transfers, and returns the progress in order.
func move(ctx context.Context, m *fixture.Mover, source, destination proto.Message) (events []*transfertypes.Progress, err error) {
	m.T.Helper()
	id, s := stream(m, "progress")
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
	err = m.Transfer(ctx, &transferapi.TransferRequest{
		Source: named(source), Destination: named(destination), Options: &transferapi.TransferOptions{ProgressStream: id},
	})
	wg.Wait()
	return events, err
}

// must is move, which must succeed.
func must(m *fixture.Mover, source, destination proto.Message) []*transfertypes.Progress {
	m.T.Helper()
	events, err := move(m.Ctx, m, source, destination)
	harness.Must(m.T, err)
	return events
}

// sendData sends data on a stream as far as the window permits, and ends its side.
func sendData(s fixture.WireStream, data []byte) error {
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
func receive(s fixture.WireStream, window int32) (data []byte, err error) {
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
func answer(m *fixture.Mover, how *transfertypes.AuthResponse) (id string, asked func() []*transfertypes.AuthRequest) {
	m.T.Helper()
	id, s := stream(m, "auth")
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
func export(m *fixture.Mover, name string, how *transfertypes.ImageExportStream) []byte {
	m.T.Helper()
	id, s := stream(m, "export")
	how.Stream = id
	var data []byte
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if data, err = receive(s, 1<<20); err != nil {
			m.T.Errorf("receive archive: %v", err)
		}
	})
	must(m, &transfertypes.ImageStore{Name: name}, how)
	wg.Wait()
	return data
}

// bring imports an archive.
func bring(m *fixture.Mover, archive []byte, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore) []*transfertypes.Progress {
	m.T.Helper()
	events, err := tryImport(m, archive, how, store)
	harness.Must(m.T, err)
	return events
}

// tryImport imports an archive, which may fail.
func tryImport(m *fixture.Mover,
	archive []byte, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore,
) ([]*transfertypes.Progress, error) {
	m.T.Helper()
	id, s := stream(m, "import")
	how.Stream = id
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := sendData(s, archive); err != nil {
			m.T.Errorf("send archive: %v", err)
		}
	})
	defer wg.Wait()
	return move(m.Ctx, m, how, store)
}
