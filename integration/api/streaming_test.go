package api

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

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// unknownAny has a type that is not a valid source.
var unknownAny = anypb.Any{TypeUrl: "example.com/nothing"}

func TestStreams_BelongToNamespace(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	one, two := fixture.Movers(d, "one"), fixture.Movers(d, "two")
	s, err := begin(one["gRPC"].Ctx, one["gRPC"], "shared")
	harness.Must(t, err)
	if _, err := begin(one["gRPC"].Ctx, one["gRPC"], "shared"); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second stream of an id: %v", err)
	}
	store := &transfertypes.ImageStore{Name: "a:1"}
	if _, err := move(two["gRPC"].Ctx, two["gRPC"], &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.NotFound {
		t.Errorf("a stream of another namespace: %v", err)
	}
	other, err := begin(two["gRPC"].Ctx, two["gRPC"], "shared")
	harness.Must(t, err)
	harness.Must(t, other.CloseSend())
	harness.Must(t, s.CloseSend())
	// Both are still present, and each can be used once: an empty archive is invalid.
	for _, m := range []*fixture.Mover{one["gRPC"], two["gRPC"]} {
		if _, err := move(m.Ctx, m, &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.InvalidArgument {
			t.Errorf("an empty archive: %v", err)
		}
		if _, err := move(m.Ctx, m, &transfertypes.ImageImportStream{Stream: "shared"}, store); status.Code(err) != codes.NotFound {
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
	t.Parallel()
	d := harness.Start(t)
	for transport, m := range fixture.Movers(d, "default") {
		s, err := m.Open(m.Ctx)
		harness.Must(t, err)
		harness.Must(t, s.Send(named(&emptypb.Empty{})))
		if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "StreamInit") {
			t.Errorf("without StreamInit over %s: %v", transport, err)
		}
		for _, id := range []string{"", strings.Repeat("x", 10_000)} {
			if _, err := begin(m.Ctx, m, id); status.Code(err) != codes.InvalidArgument {
				t.Errorf("an id of %d bytes over %s: %v", len(id), transport, err)
			}
		}
	}
	m := fixture.Movers(d, "")["gRPC"]
	if _, err := begin(t.Context(), m, "x"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("without a namespace: %v", err)
	}
}

func TestStream_ClientLeaves_Ends(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	ctx, cancel := context.WithCancel(m.Ctx)
	_, err := begin(ctx, m, "mine")
	harness.Must(t, err)
	cancel()
	d.Eventually("the id is free again", func() error {
		_, err := begin(m.Ctx, m, "mine")
		return err
	})

	// A client that leaves in the middle of an archive has not ended it.
	data, err := os.ReadFile(harness.ToolArchives(t)["umoci's layout"])
	harness.Must(t, err)
	ctx, cancel = context.WithCancel(m.Ctx)
	defer cancel()
	s, err := begin(ctx, m, "archive")
	harness.Must(t, err)
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
	err = m.Transfer(m.Ctx, &transferapi.TransferRequest{
		Source: named(&transfertypes.ImageImportStream{Stream: "archive"}), Destination: named(&transfertypes.ImageStore{Name: "a:1"}),
	})
	wg.Wait()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("half an archive: %v", err)
	}

	// Messages other than data are refused, and so is a shrinking window.
	id, s := stream(m, "odd")
	harness.Must(t, s.Send(named(&transfertypes.WindowUpdate{Update: 1})))
	err = m.Transfer(m.Ctx, &transferapi.TransferRequest{
		Source: named(&transfertypes.ImageImportStream{Stream: id}), Destination: named(&transfertypes.ImageStore{Name: "a:1"}),
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a window from the sender: %v", err)
	}
	d.NoRemains("disconnected clients")
}

func TestTransfer_StreamNotRead_Waits(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	m := fixture.Movers(d, "default")["gRPC"]
	id, _ := stream(m, "export")
	progressID, progress := stream(m, "progress")
	ctx, cancel := context.WithCancel(m.Ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- m.Transfer(ctx, &transferapi.TransferRequest{
			Source: named(&transfertypes.ImageStore{Name: "busybox"}), Destination: named(&transfertypes.ImageExportStream{Stream: id}),
			Options: &transferapi.TransferOptions{ProgressStream: progressID},
		})
	}()
	a, err := progress.Recv()
	harness.Must(t, err)
	var event transfertypes.Progress
	if harness.Must(t, a.UnmarshalTo(&event)); event.GetEvent() != "Exporting" {
		t.Errorf("began with %v", &event)
	}
	// The transfer waits for a window, and owns its stream.
	if err := m.Transfer(m.Ctx, &transferapi.TransferRequest{
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
	d.Eventually("the stream has ended", func() error { _, err := begin(m.Ctx, m, id); return err })
	d.Cleat("image", "rm", "busybox")
	d.NoRemains("a waiting transfer")
}

func TestDaemonStop_WithOpenStreams(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"gRPC", "ttrpc"} {
		t.Run(transport, func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			m := fixture.Movers(d, "default")[transport]
			_, waiting := stream(m, "waiting")
			id, _ := stream(m, "export")
			progressID, progress := stream(m, "progress")
			ended := make(chan error, 1)
			go func() {
				ended <- m.Transfer(m.Ctx, &transferapi.TransferRequest{
					Source: named(&transfertypes.ImageStore{Name: "busybox"}), Destination: named(&transfertypes.ImageExportStream{Stream: id}),
					Options: &transferapi.TransferOptions{ProgressStream: progressID},
				})
			}()
			_, err := progress.Recv()
			harness.Must(t, err)
			d.Stop()
			if err := <-ended; err == nil {
				t.Error("a stopped transfer succeeded")
			}
			if a, err := waiting.Recv(); err == nil {
				t.Errorf("an unused stream receives %v", a)
			}
			d.Begin()
			d.Cleat("image", "rm", "busybox")
			d.NoRemains("a stop with open streams")
		})
	}
}
