package client_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

var when = time.Date(2024, 2, 29, 12, 0, 0, 5, time.UTC)

func TestDial_WithoutDaemon(t *testing.T) {
	_, err := client.Dial(t.Context(), filepath.Join(t.TempDir(), "none.sock"), client.Options{})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
	if _, err := client.Dial(t.Context(), "relative", client.Options{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want invalid argument", err)
	}
}

func TestRun_SendsRequest(t *testing.T) {
	var got *cleatapi.RunRequest
	var ns string
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ContainersService: methods(map[string]ttrpc.Method{
		"Run": rpc.Unary(func(ctx context.Context, r *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
			got, ns = r, namespaceOf(ctx)
			return &cleatapi.RunResponse{Id: "x", Pid: 7, StartedAt: types.FromTime(when), Cursor: 9, LogPath: "/log"}, nil
		}),
	})})
	started, err := f.dial().Run(t.Context(), client.RunRequest{
		ID: "x", Image: "busybox", Spec: &specs.Spec{Version: "1"}, User: "www", Labels: map[string]string{"a": "b"},
		Stdio: client.Stdio{Stdin: "/in", Stdout: "/out", Stderr: "/err"}, Log: true, AutoRemove: true, StorageSize: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (client.Started{ID: "x", Pid: 7, StartedAt: when, Cursor: 9, LogPath: "/log"}); started != want {
		t.Errorf("got %+v, want %+v", started, want)
	}
	want := &cleatapi.RunRequest{
		Id: "x", Image: "busybox", Spec: []byte(`{"ociVersion":"1"}`), User: "www", Labels: map[string]string{"a": "b"},
		Stdin: "/in", Stdout: "/out", Stderr: "/err", Log: true, AutoRemove: true, StorageSize: 1 << 30,
	}
	want.Token = got.Token // generated
	if !reflect.DeepEqual(got, want) || ns != "blue" || got.Token == "" {
		t.Errorf("namespace %q, request %+v, want %+v", ns, got, want)
	}
}

func TestRun_Cancelled_RemovesContainer(t *testing.T) {
	var made string
	ctx, cancel := context.WithCancel(t.Context())
	removed := make(chan *cleatapi.RemoveRequest, 1)
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ContainersService: methods(map[string]ttrpc.Method{
		"Run": rpc.Unary(func(callCtx context.Context, r *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
			made = r.Token
			cancel()
			<-callCtx.Done() // so the answer cannot reach the client
			return &cleatapi.RunResponse{Id: r.Id}, nil
		}),
		"Remove": rpc.Unary(func(_ context.Context, r *cleatapi.RemoveRequest) (*cleatapi.RemoveResponse, error) {
			removed <- r
			return &cleatapi.RemoveResponse{}, nil
		}),
	})})
	if _, err := f.dial().Run(ctx, client.RunRequest{ID: "x", Image: "busybox"}); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	select {
	case r := <-removed:
		if r.Id != "x" || !r.Force || r.Token == "" || r.Token != made {
			t.Errorf("remove %+v of token %q", r, made)
		}
	default:
		t.Error("the container of a cancelled run was not removed")
	}
}

func TestErrors_KeepClass(t *testing.T) {
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ContainersService: methods(map[string]ttrpc.Method{
		"Remove": rpc.Unary(func(context.Context, *cleatapi.RemoveRequest) (*cleatapi.RemoveResponse, error) {
			return nil, fmt.Errorf("container x is running: %w", errdefs.ErrFailedPrecondition)
		}),
	})})
	c := f.dial()
	err := c.Remove(t.Context(), "x", false)
	if !errdefs.IsFailedPrecondition(err) || !strings.HasPrefix(err.Error(), "remove container: container x is running") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Images(t.Context()); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v, want not implemented", err)
	}
}

// A cancelled call must end in the daemon as well.
func TestCancel_ReachesDaemon(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ContainersService: methods(map[string]ttrpc.Method{
		"Run": rpc.Unary(func(ctx context.Context, _ *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
			close(entered)
			<-ctx.Done()
			close(left)
			return nil, ctx.Err()
		}),
		"List": rpc.Unary(func(context.Context, *cleatapi.ListRequest) (*cleatapi.ListResponse, error) {
			return &cleatapi.ListResponse{}, nil
		}),
	})})
	c := f.dial()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := c.Run(ctx, client.RunRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	select {
	case <-left:
	case <-time.After(time.Minute):
		t.Fatal("the daemon did not learn of the cancellation")
	}
	if _, err := c.List(t.Context(), client.ListRequest{}); err != nil {
		t.Errorf("client after a cancelled call: %v", err)
	}
}

func TestQueries_SurviveRestart(t *testing.T) {
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ShimsService: methods(map[string]ttrpc.Method{
		"List": rpc.Unary(func(context.Context, *cleatapi.ListShimsRequest) (*cleatapi.ListShimsResponse, error) {
			return &cleatapi.ListShimsResponse{Shims: []*cleatapi.Shim{{Id: "a", Pid: 3, State: "ready"}}}, nil
		}),
	})})
	c := f.dial()
	for range 20 {
		f.stop()
		f.start()
		shims, err := c.Shims(t.Context(), false)
		if err != nil || len(shims) != 1 || shims[0].Pid != 3 {
			t.Fatalf("got %+v, %v", shims, err)
		}
	}
}

func TestWait_SurvivesRestart(t *testing.T) {
	var calls atomic.Int32
	entered := make(chan struct{}, 10)
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ContainersService: methods(map[string]ttrpc.Method{
		"Wait": rpc.Unary(func(ctx context.Context, _ *cleatapi.WaitRequest) (*cleatapi.WaitResponse, error) {
			entered <- struct{}{}
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return &cleatapi.WaitResponse{ExitStatus: 42, ExitedAt: types.FromTime(when)}, nil
		}),
	})})
	c := f.dial()
	go func() {
		<-entered
		f.stop()
		f.start()
	}()
	exit, err := c.Wait(t.Context(), "x", 0)
	if want := (client.Exit{Status: 42, At: when}); err != nil || exit != want {
		t.Errorf("got %+v, %v; want %+v", exit, err, want)
	}
}

func exitEvent(t *testing.T, container, id string, status uint32) *types.Any {
	t.Helper()
	data, err := rpc.Marshal(&events.TaskExit{ContainerId: container, Id: id, ExitStatus: status, ExitedAt: types.FromTime(when)})
	if err != nil {
		t.Fatal(err)
	}
	return &types.Any{TypeUrl: "containerd.events.TaskExit", Value: data}
}

func TestWait_RemovedContainer_FindsExit(t *testing.T) {
	f := newFake(t, map[string]*ttrpc.ServiceDesc{
		cleatapi.ContainersService: methods(map[string]ttrpc.Method{
			"Wait": rpc.Unary(func(context.Context, *cleatapi.WaitRequest) (*cleatapi.WaitResponse, error) {
				return nil, fmt.Errorf("container x: %w", errdefs.ErrNotFound)
			}),
		}),
		cleatapi.EventsService: {Streams: map[string]ttrpc.Stream{
			"Subscribe": rpc.ServerStream(func(ctx context.Context, r *cleatapi.SubscribeRequest, send func(*cleatapi.Event) error) error {
				for i, e := range []*types.Any{exitEvent(t, "other", "other", 1), exitEvent(t, "x", "exec", 2), exitEvent(t, "x", "x", 3)} {
					if err := send(&cleatapi.Event{Cursor: r.Cursor + uint64(i) + 1, Topic: client.TopicExit, Event: e}); err != nil {
						return err
					}
				}
				<-ctx.Done()
				return ctx.Err()
			}),
		}},
	})
	c := f.dial()
	exit, err := c.Wait(t.Context(), "x", 17)
	if want := (client.Exit{Status: 3, At: when}); err != nil || exit != want {
		t.Errorf("got %+v, %v; want %+v", exit, err, want)
	}
	if _, err := c.Wait(t.Context(), "x", 0); !errdefs.IsNotFound(err) {
		t.Errorf("without a cursor: got %v, want not found", err)
	}
}

func TestEvents_ContinueAfterRestart(t *testing.T) {
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.EventsService: {Streams: map[string]ttrpc.Stream{
		"Subscribe": rpc.ServerStream(func(ctx context.Context, r *cleatapi.SubscribeRequest, send func(*cleatapi.Event) error) error {
			if r.Namespace != "blue" {
				return fmt.Errorf("namespace %q", r.Namespace)
			}
			if r.Cursor >= 6 {
				return fmt.Errorf("too old: %w", errdefs.ErrOutOfRange)
			}
			for i := range uint64(2) {
				if err := send(&cleatapi.Event{Cursor: r.Cursor + i + 1, Topic: "/x", Event: exitEvent(t, "x", "x", 3)}); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}),
	}}})
	c := f.dial()
	var got []uint64
	var last error
	for e, err := range c.Events(t.Context(), client.EventsRequest{FromStart: true}) {
		if err != nil {
			last = err
			continue
		}
		got = append(got, e.Cursor)
		if want := "x"; e.Fields()["container_id"] != want || e.Fields()["exit_status"] != uint64(3) {
			t.Errorf("fields %v", e.Fields())
		}
		if e.Cursor%2 == 0 {
			f.stop()
			f.start()
		}
	}
	if want := []uint64{1, 2, 3, 4, 5, 6}; !reflect.DeepEqual(got, want) || !errdefs.IsOutOfRange(last) {
		t.Errorf("got %v, then %v; want %v, then out of range", got, last, want)
	}
}

func TestEvents_EndWithLoop(t *testing.T) {
	ended := make(chan struct{})
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.EventsService: {Streams: map[string]ttrpc.Stream{
		"Subscribe": rpc.ServerStream(func(ctx context.Context, _ *cleatapi.SubscribeRequest, send func(*cleatapi.Event) error) error {
			defer close(ended)
			for i := uint64(1); ctx.Err() == nil; i++ {
				if err := send(&cleatapi.Event{Cursor: i}); err != nil {
					return err
				}
			}
			return ctx.Err()
		}),
	}}})
	for _, err := range f.dial().Events(t.Context(), client.EventsRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the daemon still sends")
	}
}

func TestClose_CallsAreUnavailable(t *testing.T) {
	c := newFake(t, nil).dial()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), "x", 0); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
}
