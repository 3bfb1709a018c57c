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

// scene is a state directory with one bundle, daemons that come and go, and what they announced.
type scene struct {
	t      *testing.T
	base   string
	socket string
	mu     sync.Mutex
	told   []string
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

// manager is the next daemon's, with nothing recovered yet.
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
			s.told = append(s.told, e.Topic)
			return nil
		},
	})
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, m.Close()) })
	return m
}

// bundle makes the bundle of a container c, with files besides.
func (s *scene) bundle(m *Manager, files ...string) *bundle {
	s.t.Helper()
	b := m.bundleOf("ns", "c")
	must(s.t, b.create(nil, "", "/none/"+nativeBinary))
	must(s.t, b.writeAddress(address{Version: 3, Address: "unix://" + s.socket, Protocol: "ttrpc", Native: true}))
	must(s.t, removeFile(b.file(pendingFile)))
	for _, f := range files {
		must(s.t, writeEmpty(b.file(f)))
	}
	return b
}

// ended puts an exit on record, as a shim does before it announces it.
func (s *scene) ended(b *bundle) {
	s.t.Helper()
	must(s.t, exitrecord.Write(b.path, exitrecord.Record{ID: "c", Pid: 7, Status: 5, ExitedAt: time.Unix(1700000000, 0)}))
}

// shim serves as cleat's, with or without the container, until the returned function ends it.
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

// task waits until the task has come to what is asked for.
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

// announced compares what all daemons have announced so far.
func (s *scene) announced(want ...string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.told, want) {
		s.t.Errorf("announced %v, want %v", s.told, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exitEvent(t *testing.T, pid uint32, at time.Time) events.Event {
	t.Helper()
	data, err := rpc.Marshal(&apievents.TaskExit{ContainerId: "c", Id: "c", Pid: pid, ExitStatus: 5, ExitedAt: types.FromTime(at)})
	must(t, err)
	return events.Event{Namespace: "ns", Topic: "/tasks/exit", TypeURL: "containerd.events.TaskExit", Value: data}
}

func isDead(i Info) bool  { return i.Link == Dead }
func isReady(i Info) bool { return i.Link == Ready }

func refuse(context.Context) (*task.DeleteResponse, error) {
	return nil, errdefs.ErrFailedPrecondition
}

// TestExitIsToldOnceThoughShimAndDaemonDie has one daemon announce an exit, and the next find the shim dead.
func TestExitIsToldOnceThoughShimAndDaemonDie(t *testing.T) {
	s := newScene(t)
	first := s.manager()
	b := s.bundle(first)
	end := s.shim(true, refuse)
	must(t, first.Recover(nil))
	s.task(first, "the shim is adopted", isReady)
	s.ended(b)
	must(t, first.Observe(exitEvent(t, 7, time.Now())))
	must(t, first.Close())
	end()

	second := s.manager()
	must(t, second.Recover(nil))
	dead := s.task(second, "the shim is known to be dead", isDead)
	s.announced("/tasks/exit")
	if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
		t.Errorf("delete: %+v, %v", e, err)
	}
	s.announced("/tasks/exit", "/tasks/delete")
}

// TestTaskThatItsShimDeletedIsToldOnce has a daemon find a shim without a container: it was told to delete it by an
// earlier daemon, and announced exit and deletion; or it was to adopt it, and was too late.
func TestTaskThatItsShimDeletedIsToldOnce(t *testing.T) {
	for name, tc := range map[string]struct{ files, want []string }{
		"deleted": {},
		"revived": {[]string{revivedFile}, []string{"/tasks/exit", "/tasks/delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.manager()
			s.ended(s.bundle(m, tc.files...))
			s.shim(false, refuse)
			must(t, m.Recover(nil))
			dead := s.task(m, "the shim is known to be empty", isDead)
			if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
				t.Errorf("delete: %+v, %v", e, err)
			}
			s.announced(tc.want...)
		})
	}
}

// TestHalfMadeTaskThatWasAnnounced has daemon and shim die before a request is answered, whose container was
// announced: or not.
func TestHalfMadeTaskThatWasAnnounced(t *testing.T) {
	for name, announced := range map[string]bool{"announced": true, "not announced": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			first := s.manager()
			b := s.bundle(first, pendingFile)
			s.ended(b)
			var want []string
			if announced {
				must(t, first.add(first.newTask(b, "/none/"+nativeBinary, Info{})))
				data, err := rpc.Marshal(&apievents.TaskCreate{ContainerId: "c"})
				must(t, err)
				must(t, first.Observe(events.Event{Namespace: "ns", Topic: "/tasks/create", TypeURL: "containerd.events.TaskCreate", Value: data}))
				want = []string{"/tasks/create", "/tasks/exit", "/tasks/delete"}
			}
			must(t, first.Close())

			second := s.manager()
			must(t, second.Recover(nil))
			s.eventually("the bundle is removed", func() bool { return second.lookup("ns", "c") == nil })
			if b.has("") {
				t.Error("the bundle is left")
			}
			s.announced(want...)
		})
	}
}

// TestDeleteGoesOnWithoutItsClient has the client leave while the shim deletes.
func TestDeleteGoesOnWithoutItsClient(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	s.bundle(m)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	s.shim(true, func(ctx context.Context) (*task.DeleteResponse, error) {
		leave()
		<-gone
		return &task.DeleteResponse{Pid: 7, ExitStatus: 5, ExitedAt: types.FromTime(time.Now())}, ctx.Err()
	})
	must(t, m.Recover(nil))
	held := s.task(m, "the shim is adopted", isReady)
	if _, err := held.Delete(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	close(gone)
	s.eventually("the task is deleted", func() bool { return m.lookup("ns", "c") == nil })
	if e := held.Info().Exit; e.Status != 5 {
		t.Errorf("exit %+v", e)
	}
}

// TestDeleteWhoseShimDies has the shim die while it deletes.
func TestDeleteWhoseShimDies(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	s.ended(s.bundle(m))
	dying, died := make(chan struct{}), make(chan struct{})
	end := s.shim(true, func(context.Context) (*task.DeleteResponse, error) {
		close(dying)
		<-died
		return nil, errdefs.ErrUnavailable
	})
	must(t, m.Recover(nil))
	held := s.task(m, "the shim is adopted", isReady)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-dying
		go end() // which waits for the call above
		s.eventually("the connection is broken", func() bool { return held.Info().Link != Ready })
		close(died)
	})
	if e, err := held.Delete(t.Context()); err != nil || e.Status != 5 {
		t.Errorf("delete: %+v, %v", e, err)
	}
	wg.Wait()
	s.announced("/tasks/exit", "/tasks/delete")
}

// TestLastWordOfAnEarlierTask has a shim tell of an exit when the next container of that name is being made, and
// when it runs.
func TestLastWordOfAnEarlierTask(t *testing.T) {
	for name, pid := range map[string]uint32{"being made": 0, "running": 8} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.manager()
			next := m.newTask(m.bundleOf("ns", "c"), "/none/"+nativeBinary, Info{Pid: pid})
			next.made = time.Now()
			must(t, m.add(next))
			must(t, m.Observe(exitEvent(t, 7, next.made.Add(-time.Second))))
			select {
			case <-next.Exited():
				t.Error("taken for the exit of the next one")
			default:
			}
			must(t, m.Observe(exitEvent(t, 8, time.Now())))
			select {
			case <-next.Exited():
			default:
				t.Error("its own exit is not known")
			}
			s.announced("/tasks/exit", "/tasks/exit")
		})
	}
}
