package shim_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// daemon represents the daemon: it accepts the events of shims.
type daemon struct {
	state  string
	socket string
	mu     sync.Mutex
	got    []*types.Envelope
	news   chan struct{}
	server *ttrpc.Server
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	state, err := os.MkdirTemp("", "cs-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{state: state, socket: filepath.Join(state, "d.ttrpc"), news: make(chan struct{}, 1)}
	t.Cleanup(func() {
		d.stop()
		if out, err := exec.Command("mount").Output(); err == nil && bytes.Contains(out, []byte(state)) {
			t.Errorf("mounts left below %s", state)
		}
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
	})
	d.serve(t)
	return d
}

func (d *daemon) serve(t *testing.T) {
	t.Helper()
	l, err := rpc.Listen(d.socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService("containerd.services.events.ttrpc.v1.Events", &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{"Forward": rpc.Unary(d.forward)},
	})
	d.mu.Lock()
	d.server = server
	d.mu.Unlock()
	go func() { _ = server.Serve(context.Background(), l) }()
}

// stop is the daemon's death.
func (d *daemon) stop() {
	d.mu.Lock()
	server := d.server
	d.server = nil
	d.mu.Unlock()
	if server != nil {
		_ = server.Close()
		_ = os.Remove(d.socket)
	}
}

func (d *daemon) forward(_ context.Context, req *types.ForwardRequest) (*types.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.got); n == 0 || !again(d.got[n-1], req.Envelope) {
		d.got = append(d.got, req.Envelope)
	}
	select {
	case d.news <- struct{}{}:
	default:
	}
	return &types.Empty{}, nil
}

// again reports whether an event repeats the last one, sent again by a shim that got no answer in
// time.
func again(last, e *types.Envelope) bool {
	return last.Topic == e.Topic && last.Timestamp.Time().Equal(e.Timestamp.Time()) && bytes.Equal(last.Event.Value, e.Event.Value)
}

// topics returns what was received so far: topic, and the identity of the process.
func (d *daemon) topics(t *testing.T) []string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, e := range d.got {
		topic := strings.TrimPrefix(e.Topic, "/tasks/")
		if e.Namespace != namespace {
			t.Errorf("event %s in namespace %q", topic, e.Namespace)
		}
		if topic == "exit" {
			var x events.TaskExit
			if err := x.Unmarshal(e.Event.Value); err != nil {
				t.Error(err)
			}
			topic += " " + x.Id + " " + strconv.Itoa(int(x.ExitStatus))
		}
		out = append(out, topic)
	}
	return out
}

// await waits for an event.
func (d *daemon) await(ctx context.Context, t *testing.T, topic string) {
	t.Helper()
	for {
		for _, got := range d.topics(t) {
			if got == topic {
				return
			}
		}
		select {
		case <-d.news:
		case <-ctx.Done():
			t.Fatalf("no event %q; got %q", topic, d.topics(t))
		}
	}
}
