package shim

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

func newTestPublisher(t *testing.T, address, binary string) *publisher {
	t.Helper()
	r := reaper.New()
	t.Cleanup(func() { _ = r.Close() })
	p := newPublisher("ns", address, "/grpc", binary, newMonitor(r, os.Environ()), &logger{out: io.Discard})
	t.Cleanup(p.close)
	return p
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A daemon that refuses every other event and is restarted in between still gets all events, in order.
func TestEvents_FailingDaemon_AreDelivered(t *testing.T) {
	const n = 60
	path := filepath.Join(t.TempDir(), "d.sock")
	p := newTestPublisher(t, path, "")
	var mu sync.Mutex
	var got []string
	calls := 0
	serve := func() *ttrpc.Server {
		l, err := rpc.Listen(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		server, err := ttrpc.NewServer()
		if err != nil {
			t.Fatal(err)
		}
		server.RegisterService(eventsService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
			"Forward": rpc.Unary(func(_ context.Context, req *types.ForwardRequest) (*types.Empty, error) {
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls%20 == 0 {
					return nil, errdefs.ErrUnavailable
				}
				var e events.TaskStart
				if err := e.Unmarshal(req.Envelope.Event.Value); err != nil {
					t.Error(err)
				}
				got = append(got, e.ContainerId)
				return &types.Empty{}, nil
			}),
		}})
		go func() { _ = server.Serve(context.Background(), l) }()
		return server
	}
	for i := range n {
		if i == n/3 || i == 2*n/3 {
			server := serve()
			if err := p.drain(within(t)); err != nil {
				t.Fatal(err)
			}
			_ = server.Close()
			_ = os.Remove(path)
		}
		p.publish("/tasks/start", "containerd.events.TaskStart", &events.TaskStart{ContainerId: strconv.Itoa(i)})
	}
	if p.pending() == 0 {
		t.Error("nothing is pending without a listener")
	}
	server := serve()
	defer func() { _ = server.Close() }()
	p.retryNow("")
	if err := p.drain(within(t)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	last := -1
	for _, id := range got { // published at least once, in order
		i, err := strconv.Atoi(id)
		if err != nil || i != last && i != last+1 {
			t.Fatalf("after %d came %s: %q", last, id, got)
		}
		last = i
	}
	if last != n-1 {
		t.Errorf("the last is %d", last)
	}
}

// Daemons without ttrpc get events through their binary.
func TestEvents_ByBinary(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "publish")
	if err := os.WriteFile(script, []byte("#!/bin/busybox sh\n(echo $*; cat) >> "+dir+"/out\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := newTestPublisher(t, "", script)
	p.publish("/tasks/start", "containerd.events.TaskStart", &events.TaskStart{ContainerId: "web"})
	if err := p.drain(within(t)); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil || !strings.HasPrefix(string(out), "--address /grpc publish --topic /tasks/start --namespace ns\n") ||
		!strings.Contains(string(out), "web") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestDrain_IsBounded(t *testing.T) {
	p := newTestPublisher(t, filepath.Join(t.TempDir(), "absent"), "")
	p.publish("/tasks/start", "x", &events.TaskStart{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.drain(ctx); err == nil || p.pending() != 1 {
		t.Errorf("drain: %v, %d pending", err, p.pending())
	}
}
