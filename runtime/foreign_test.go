package runtime

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	apievents "github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// serveSilentShim serves as a foreign shim that answers calls and forwards no event. Its container runs
// until ended is closed.
func serveSilentShim(t *testing.T, socket string, ended <-chan struct{}, exit *task.WaitResponse) {
	t.Helper()
	l, err := rpc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService(task.V3Service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Connect": rpc.Unary(func(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
			return &task.ConnectResponse{ShimPid: 6, Version: "v0"}, nil
		}),
		"State": rpc.Unary(func(_ context.Context, req *task.StateRequest) (*task.StateResponse, error) {
			return &task.StateResponse{Id: req.Id, Pid: 7, Status: types.Status_RUNNING}, nil
		}),
		"Wait": rpc.Unary(func(ctx context.Context, _ *task.WaitRequest) (*task.WaitResponse, error) {
			select {
			case <-ended:
				return exit, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}),
	}})
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// TestForeignExit_NeverForwarded has the daemon publish an exit that it knows from Wait only: once, even
// if the shim forwards it later, and with the exit on record before.
func TestForeignExit_NeverForwarded(t *testing.T) {
	base, err := os.MkdirTemp("", "cr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	published := make(chan events.Event, 4)
	m, err := New(Config{
		State: filepath.Join(base, "state"), Root: filepath.Join(base, "root"), Log: slog.New(slog.DiscardHandler),
		Publish: func(e events.Event) error { published <- e; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ended, at := make(chan struct{}), time.Unix(1700000000, 0).UTC()
	socket := filepath.Join(base, "shim.sock")
	serveSilentShim(t, socket, ended, &task.WaitResponse{ExitStatus: 9, ExitedAt: types.FromTime(at)})
	b := m.bundleOf("ns", "c")
	err = errors.Join(
		b.create("", "/x/containerd-shim-other-v1"),
		b.writeAddress(address{Version: 3, Address: "unix://" + socket, Protocol: "ttrpc"}),
		b.writeState(bundleState{Committed: true, Phase: reported}),
		m.Recover(nil),
	)
	t.Cleanup(func() { _ = m.Close() }) // before the shim exits, which would count as its death
	if err != nil {
		t.Fatal(err)
	}

	close(ended)
	var got events.Event
	select {
	case got = <-published:
	case <-time.After(time.Minute):
		t.Fatal("the exit is not published")
	}
	var exit apievents.TaskExit
	if err := exit.Unmarshal(got.Value); err != nil {
		t.Fatal(err)
	}
	if got.Namespace != "ns" || got.Topic != "/tasks/exit" || got.TypeURL != "containerd.events.TaskExit" ||
		exit.ContainerId != "c" || exit.Id != "c" || exit.Pid != 7 || exit.ExitStatus != 9 || !exit.ExitedAt.Time().Equal(at) {
		t.Errorf("published %+v, exit %+v", got, exit)
	}
	if rec, err := exitrecord.Read(b.path); err != nil || rec.Status != 9 || rec.Pid != 7 || !rec.ExitedAt.Equal(at) {
		t.Errorf("record %+v, %v", rec, err)
	}
	if err := m.Observe(got); err != nil { // a late event
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if state, err := b.readState(); err != nil || state.Phase != exitReported {
		t.Errorf("state %+v, %v", state, err)
	}
	if n := len(published); n != 0 {
		t.Errorf("published %d times more", n)
	}
}
