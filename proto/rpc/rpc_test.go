package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apitask "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// serve starts a server with the given service and returns a client of it.
func serve(t *testing.T, path string, desc *ttrpc.ServiceDesc) *ttrpc.Client {
	t.Helper()
	l, err := rpc.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	srv.RegisterService("test", desc)
	done := make(chan error)
	go func() { done <- srv.Serve(context.Background(), l) }()
	c, err := rpc.Dial(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), srv.Close()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Error(err)
		}
	})
	return c
}

func TestCall_TransmitsMessages(t *testing.T) {
	c := serve(t, filepath.Join(t.TempDir(), "s"), &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Exec": rpc.Unary(func(_ context.Context, req *task.ExecProcessRequest) (*task.StateResponse, error) {
			return &task.StateResponse{Id: req.Id, Stdin: req.Spec.TypeUrl, Bundle: string(req.Spec.Value), Terminal: req.Terminal}, nil
		}),
	}})
	big := bytes.Repeat([]byte("x"), 1<<20)
	for _, value := range [][]byte{nil, []byte("y"), big} {
		resp, err := rpc.Call[task.StateResponse](t.Context(), c, "test", "Exec",
			&task.ExecProcessRequest{Id: "a", Terminal: true, Spec: &types.Any{TypeUrl: "url", Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		if resp.Id != "a" || resp.Stdin != "url" || !resp.Terminal || resp.Bundle != string(value) {
			t.Fatalf("got %.100v", resp)
		}
	}
}

func TestErrors_KeepClass(t *testing.T) {
	var answer error
	c := serve(t, filepath.Join(t.TempDir(), "s"), &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Fail": rpc.Unary(func(context.Context, *types.Empty) (*types.Empty, error) { return nil, answer }),
	}})
	for _, class := range []error{
		errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition,
		errdefs.ErrUnavailable, errdefs.ErrNotImplemented, errdefs.ErrPermissionDenied, errdefs.ErrUnauthenticated,
		errdefs.ErrResourceExhausted, errdefs.ErrOutOfRange, errdefs.ErrAborted, errdefs.ErrDataLoss, errdefs.ErrInternal,
		context.Canceled, context.DeadlineExceeded,
	} {
		answer = fmt.Errorf("open thing %q: %w", "x", class)
		_, err := rpc.Call[types.Empty](t.Context(), c, "test", "Fail", &types.Empty{})
		if !errors.Is(err, class) || err.Error() != answer.Error() {
			t.Errorf("%v came back as %v", answer, err)
		}
	}
	if _, err := rpc.Call[types.Empty](t.Context(), c, "test", "Missing", &types.Empty{}); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("a missing method: %v", err)
	}
}

func TestErrors_WithInvalidUTF8_AreAnswered(t *testing.T) {
	said := fmt.Errorf("open thing a\xff\xfeb: %w", errdefs.ErrNotFound)
	c := serve(t, filepath.Join(t.TempDir(), "s"), &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Fail": rpc.Unary(func(context.Context, *types.Empty) (*types.Empty, error) { return nil, said }),
		},
		Streams: map[string]ttrpc.Stream{
			"Fails": rpc.ServerStream(func(context.Context, *types.Empty, func(*types.Empty) error) error { return said }),
		},
	})
	_, unary := rpc.Call[types.Empty](t.Context(), c, "test", "Fail", &types.Empty{})
	s, err := rpc.OpenServerStream[types.Empty](t.Context(), c, "test", "Fails", &types.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	_, stream := s.Receive(t.Context())
	for what, err := range map[string]error{"call": unary, "stream": stream} {
		if !errdefs.IsNotFound(err) || err.Error() != "open thing a\ufffdb: not found" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestStreams(t *testing.T) {
	c := serve(t, filepath.Join(t.TempDir(), "s"), &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{
		"Count": rpc.ServerStream(func(_ context.Context, req *task.WaitResponse, send func(*task.WaitResponse) error) error {
			for i := range req.ExitStatus {
				if err := send(&task.WaitResponse{ExitStatus: i}); err != nil {
					return err
				}
			}
			return nil
		}),
		"Double": {StreamingClient: true, StreamingServer: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
			for {
				var m apitask.WaitResponse
				if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
					return nil, nil
				} else if err != nil {
					return nil, err
				}
				if m.GetExitStatus() == 0 {
					return nil, nil
				}
				if err := s.SendMsg(&apitask.WaitResponse{ExitStatus: 2 * m.GetExitStatus()}); err != nil {
					return nil, err
				}
			}
		}},
	}})
	in, err := rpc.OpenServerStream[task.WaitResponse](t.Context(), c, "test", "Count", &task.WaitResponse{ExitStatus: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(100) {
		m, err := in.Receive(t.Context())
		if err != nil || m.ExitStatus != i {
			t.Fatalf("message %d: %v, %v", i, m, err)
		}
	}
	if _, err := in.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last: %v", err)
	}
	both, err := rpc.OpenDuplex[task.WaitResponse](t.Context(), c, "test", "Double")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint32{1, 2, 3, 0} {
		if err := both.Send(t.Context(), &task.WaitResponse{ExitStatus: i}); err != nil {
			t.Fatal(err)
		}
		m, err := both.Receive(t.Context())
		if i == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil || m.ExitStatus != 2*i {
			t.Fatalf("of %d: %v, %v", i, m, err)
		}
	}
	missing, err := rpc.OpenDuplex[task.WaitResponse](t.Context(), c, "test", "Missing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.Receive(t.Context()); !errdefs.IsNotImplemented(err) {
		t.Errorf("of a missing method: %v", err)
	}
}

func TestSocketPath_AnyLength(t *testing.T) {
	for _, n := range []int{10, 120, 250} {
		dir := filepath.Join(t.TempDir(), strings.Repeat("d", n))
		for _, sub := range []string{dir, filepath.Join(dir, strings.Repeat("e", 200))} {
			if err := mkdir(sub); err != nil {
				t.Fatal(err)
			}
			c := serve(t, filepath.Join(sub, "socket"), &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
				"Ping": rpc.Unary(func(context.Context, *types.Empty) (*types.Empty, error) { return &types.Empty{}, nil }),
			}})
			if _, err := rpc.Call[types.Empty](t.Context(), c, "test", "Ping", &types.Empty{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSocketPath(t *testing.T) {
	for in, want := range map[string]string{
		"/run/x": "/run/x", "unix:///run/x": "/run/x", "ttrpc+unix:///run/x": "/run/x", "grpc+unix:///run/x": "/run/x",
		"": "", "x": "", "unix://x": "", "vsock://3:4": "", "@abstract": "", "unix://@abstract": "",
	} {
		got, err := rpc.SocketPath(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestDialSocket_WithoutListener(t *testing.T) {
	if _, err := rpc.Dial(t.Context(), filepath.Join(t.TempDir(), "s")); !errdefs.IsUnavailable(err) {
		t.Fatal(err)
	}
}

func BenchmarkCall(b *testing.B) {
	msg := &task.StateResponse{Id: "web", Bundle: "/run/cleat/x", Pid: 1}
	for b.Loop() {
		data, err := rpc.Marshal(msg)
		if err != nil {
			b.Fatal(err)
		}
		var back task.StateResponse
		if err := back.Unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
}

func mkdir(path string) error { return os.MkdirAll(path, 0o700) }
