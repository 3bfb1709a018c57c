package runtime

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	apievents "github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// scene is a state directory with one bundle, consecutive daemons, and what they published.
type scene struct {
	t      *testing.T
	base   string
	socket string
	kill   func() error // the shim's implementation of Kill
	mu     sync.Mutex
	topics []string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	base, err := os.MkdirTemp("", "cr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	return &scene{t: t, base: base, socket: filepath.Join(base, "shim.sock")}
}

// manager creates the next daemon's Manager, with nothing recovered yet.
func (s *scene) manager() *Manager {
	s.t.Helper()
	r := reaper.New()
	s.t.Cleanup(func() { must(s.t, r.Close()) })
	m, err := New(Config{
		Reaper: r,
		State:  filepath.Join(s.base, "state"), Root: filepath.Join(s.base, "root"), Log: slog.New(slog.DiscardHandler),
		Publish: func(e events.Event) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.topics = append(s.topics, e.Topic)
			return nil
		},
	})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, m.Close()) })
	return m
}

// bundle creates the bundle of a container c, with an unusual state.
func (s *scene) bundle(m *Manager, state ...bundleState) *bundle {
	s.t.Helper()
	b := m.bundleOf("ns", "c")
	must(s.t, b.create("", "/none/"+nativeBinary))
	must(s.t, b.writeAddress(address{Version: 3, Address: "unix://" + s.socket, Protocol: "ttrpc", Native: true}))
	state = append(state, bundleState{Committed: true, Phase: reported})
	must(s.t, b.writeState(state[0]))
	return b
}

// ended records an exit, as a shim does before it reports it.
func (s *scene) ended(b *bundle) {
	s.t.Helper()
	must(s.t, exitrecord.Write(b.path, exitrecord.Record{ID: "c", Pid: 7, Status: 5, ExitedAt: time.Unix(1700000000, 0)}))
}

// shim serves like cleat's, with or without the container, until the returned function ends it.
func (s *scene) shim(holds bool, del func(context.Context) (*task.DeleteResponse, error)) (end func()) {
	s.t.Helper()
	l, err := rpc.Listen(s.socket, 0o600)
	must(s.t, err)
	server, err := ttrpc.NewServer()
	must(s.t, err)
	server.RegisterService(shimapi.Service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Status": rpc.Unary(func(context.Context, *shimapi.StatusRequest) (*shimapi.StatusResponse, error) {
			resp := &shimapi.StatusResponse{ShimPid: 6}
			if holds {
				resp.Processes = []*shimapi.Process{{Id: "c", Pid: 7, Status: types.Status_RUNNING}}
			}
			return resp, nil
		}),
	}})
	server.RegisterService(task.V3Service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Delete":   rpc.Unary(func(ctx context.Context, _ *task.DeleteRequest) (*task.DeleteResponse, error) { return del(ctx) }),
		"Kill":     rpc.Unary(func(context.Context, *task.KillRequest) (*types.Empty, error) { return &types.Empty{}, s.kill() }),
		"Shutdown": rpc.Unary(func(context.Context, *task.ShutdownRequest) (*types.Empty, error) { return &types.Empty{}, nil }),
	}})
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	end = sync.OnceFunc(func() {
		must(s.t, server.Close())
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(end)
	return end
}

// task waits until the task satisfies a condition.
func (s *scene) task(m *Manager, what string, is func(Info) bool) *Task {
	s.t.Helper()
	var task *Task
	s.eventually(what, func() bool {
		var err error
		task, err = m.Get("ns", "c")
		return err == nil && is(task.Info())
	})
	return task
}

func (s *scene) eventually(what string, is func() bool) {
	s.t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("not in time: %s", what)
		}
	}
}

// published compares what all daemons have published so far.
func (s *scene) published(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.topics, want) {
		s.t.Errorf("published %v, want %v", s.topics, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func event(t *testing.T, topic string, msg rpc.Message) events.Event {
	t.Helper()
	data, err := rpc.Marshal(msg)
	must(t, err)
	return events.Event{Namespace: "ns", Topic: topic, Value: data}
}

func createEvent(t *testing.T, pid uint32) events.Event {
	t.Helper()
	return event(t, "/tasks/create", &apievents.TaskCreate{ContainerId: "c", Pid: pid})
}

func exitEvent(t *testing.T, pid uint32) events.Event {
	t.Helper()
	return event(t, "/tasks/exit", &apievents.TaskExit{
		ContainerId: "c", Id: "c", Pid: pid, ExitStatus: 5, ExitedAt: types.FromTime(time.Now()),
	})
}

func deleteEvent(t *testing.T, pid uint32) events.Event {
	t.Helper()
	return event(t, "/tasks/delete", &apievents.TaskDelete{ContainerId: "c", Id: "c", Pid: pid, ExitStatus: 5})
}

func isDead(i Info) bool  { return i.Link == Dead }
func isReady(i Info) bool { return i.Link == Ready }

func refuse(context.Context) (*task.DeleteResponse, error) {
	return nil, errdefs.ErrFailedPrecondition
}
