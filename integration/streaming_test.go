package integration

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// unknownAny has a type that is not a valid source.
var unknownAny = anypb.Any{TypeUrl: "example.com/nothing"}

func TestStreams_BelongToNamespace(t *testing.T) {
	d := Start(t)
	one, two := d.movers("one"), d.movers("two")
	s, err := one["gRPC"].begin(one["gRPC"].ctx, "shared")
	must(t, err)
	if _, err := one["gRPC"].begin(one["gRPC"].ctx, "shared"); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second stream of an id: %v", err)
	}
	store := &transfertypes.ImageStore{Name: "a:1"}
	if _, err := two["gRPC"].move(two["gRPC"].ctx, &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.NotFound {
		t.Errorf("a stream of another namespace: %v", err)
	}
	other, err := two["gRPC"].begin(two["gRPC"].ctx, "shared")
	must(t, err)
	must(t, other.CloseSend())
	must(t, s.CloseSend())
	// Both are still present, and each can be used once: an empty archive is invalid.
	for _, m := range []*mover{one["gRPC"], two["gRPC"]} {
		if _, err := m.move(m.ctx, &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.InvalidArgument {
			t.Errorf("an empty archive: %v", err)
		}
		if _, err := m.move(m.ctx, &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.NotFound {
			t.Errorf("a used stream: %v", err)
		}
	}
	if _, err := s.Recv(); err != nil { // the window
		t.Error(err)
	}
	if a, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the stream of a failed transfer ended with %v, %v", a, err)
	}
}

func TestStreams_InvalidInit_IsRefused(t *testing.T) {
	d := Start(t)
	for transport, m := range d.movers("default") {
		s, err := m.open(m.ctx)
		must(t, err)
		must(t, s.Send(named(&emptypb.Empty{})))
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "StreamInit") {
			t.Errorf("without StreamInit over %s: %v", transport, err)
		}
		for _, id := range []string{"", strings.Repeat("x", 10_000)} {
			if _, err := m.begin(m.ctx, id); status.Code(err) != codes.InvalidArgument {
				t.Errorf("an id of %d bytes over %s: %v", len(id), transport, err)
			}
		}
	}
	m := d.movers("")["gRPC"]
	if _, err := m.begin(t.Context(), "x"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a namespace: %v", err)
	}
}

func TestStream_ClientLeaves_Ends(t *testing.T) {
	d := Start(t)
	m := d.movers("default")["gRPC"]
	ctx, cancel := context.WithCancel(m.ctx)
	_, err := m.begin(ctx, "mine")
	must(t, err)
	cancel()
	d.Eventually("the id is free again", func() error {
		_, err := m.begin(m.ctx, "mine")
		return err
	})

	// A client that leaves in the middle of an archive has not ended it.
	data, err := os.ReadFile(toolArchives(t)["umoci's layout"])
	must(t, err)
	ctx, cancel = context.WithCancel(m.ctx)
	defer cancel()
	s, err := m.begin(ctx, "archive")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		a, err := s.Recv()
		if err != nil || !a.MessageIs(&transfertypes.WindowUpdate{}) {
			t.Errorf("before the first byte: %v, %v", a, err)
		}
		if err := s.Send(named(&transfertypes.Data{Data: data[:len(data)/2]})); err != nil {
			t.Error(err)
		}
		cancel()
	})
	err = m.transfer(m.ctx, &transferapi.TransferRequest{
		Source: named(&transfertypes.ImageImportStream{Stream: "archive"}), Destination: named(&transfertypes.ImageStore{Name: "a:1"}),
	})
	wg.Wait()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("half an archive: %v", err)
	}

	// Messages other than data are refused, and so is a shrinking window.
	id, s := m.stream("odd")
	must(t, s.Send(named(&transfertypes.WindowUpdate{Update: 1})))
	err = m.transfer(m.ctx, &transferapi.TransferRequest{
		Source: named(&transfertypes.ImageImportStream{Stream: id}), Destination: named(&transfertypes.ImageStore{Name: "a:1"}),
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a window from the sender: %v", err)
	}
	d.nothingMade("clients that leave")
}

func TestTransfer_StreamNotRead_Waits(t *testing.T) {
	d := Start(t)
	d.Busybox()
	m := d.movers("default")["gRPC"]
	id, _ := m.stream("export")
	told, progress := m.stream("progress")
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- m.transfer(ctx, &transferapi.TransferRequest{
			Source: named(&transfertypes.ImageStore{Name: "busybox"}), Destination: named(&transfertypes.ImageExportStream{Stream: id}),
			Options: &transferapi.TransferOptions{ProgressStream: told},
		})
	}()
	a, err := progress.Recv()
	must(t, err)
	var event transfertypes.Progress
	if must(t, a.UnmarshalTo(&event)); event.GetEvent() != "Exporting" {
		t.Errorf("began with %v", &event)
	}
	// The transfer waits for a window, and owns its stream.
	if err := m.transfer(m.ctx, &transferapi.TransferRequest{
		Source: named(&transfertypes.ImageStore{Name: "busybox"}), Destination: named(&transfertypes.ImageExportStream{Stream: id}),
	}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a stream of another transfer: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("the transfer ended without sending data: %v", err)
	default:
	}
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	d.Eventually("the stream has ended", func() error { _, err := m.begin(m.ctx, id); return err })
	d.Cleat("image", "rm", "busybox")
	d.nothingMade("a transfer that waited")
}

func TestDaemonStop_WithOpenStreams(t *testing.T) {
	for _, transport := range []string{"gRPC", "ttrpc"} {
		t.Run(transport, func(t *testing.T) {
			d := Start(t)
			d.Busybox()
			m := d.movers("default")[transport]
			_, waiting := m.stream("waiting")
			id, _ := m.stream("export")
			told, progress := m.stream("progress")
			ended := make(chan error, 1)
			go func() {
				ended <- m.transfer(m.ctx, &transferapi.TransferRequest{
					Source: named(&transfertypes.ImageStore{Name: "busybox"}), Destination: named(&transfertypes.ImageExportStream{Stream: id}),
					Options: &transferapi.TransferOptions{ProgressStream: told},
				})
			}()
			_, err := progress.Recv()
			must(t, err)
			d.Stop()
			if err := <-ended; err == nil {
				t.Error("a stopped transfer succeeded")
			}
			if a, err := waiting.Recv(); err == nil {
				t.Errorf("an unused stream receives %v", a)
			}
			d.Begin()
			d.Cleat("image", "rm", "busybox")
			d.nothingMade("a stop with streams open")
		})
	}
}
