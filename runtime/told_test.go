package runtime

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// TestEndIsToldOnceThoughShimAndDaemonDie has one daemon announce what a shim told it, and the next find the shim dead.
func TestEndIsToldOnceThoughShimAndDaemonDie(t *testing.T) {
	for name, deleted := range map[string]bool{"the exit": false, "the deletion too": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			first := s.manager()
			b := s.bundle(first)
			end := s.shim(true, refuse)
			must(t, first.Recover(nil))
			s.task(first, "the shim is adopted", isReady)
			s.ended(b)
			must(t, first.Observe(exitEvent(t, 7)))
			told := []string{"/tasks/exit"}
			if deleted {
				must(t, first.Observe(deleteEvent(t, 7)))
				told = append(told, "/tasks/delete")
			}
			must(t, first.Close())
			end()

			second := s.manager()
			must(t, second.Recover(nil))
			dead := s.task(second, "the shim is known to be dead", isDead)
			s.announced(told...)
			if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
				t.Errorf("delete: %+v, %v", e, err)
			}
			s.announced("/tasks/exit", "/tasks/delete")
		})
	}
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

// TestRevivedShimThatAdoptedTellsItself has a new shim come in time: what it deletes later, it has told of.
func TestRevivedShimThatAdoptedTellsItself(t *testing.T) {
	s := newScene(t)
	first := s.manager()
	b := s.bundle(first, revivedFile)
	end := s.shim(true, refuse)
	must(t, first.Recover(nil))
	s.task(first, "the shim is adopted", isReady)
	must(t, first.Close())
	end()

	s.ended(b)
	must(t, removeFile(s.socket))
	s.shim(false, refuse)
	second := s.manager()
	must(t, second.Recover(nil))
	dead := s.task(second, "the shim is known to be empty", isDead)
	if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
		t.Errorf("delete: %+v, %v", e, err)
	}
	s.announced()
}

// TestNothingReachesTheNextBundle has somebody who is slow go on with a task that is deleted, when the next one of
// its name has its bundle.
func TestNothingReachesTheNextBundle(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	s.ended(s.bundle(m))
	must(t, m.Recover(nil))
	slow := s.task(m, "the shim is known to be dead", isDead)
	if _, err := slow.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := s.bundle(m)
	must(t, slow.note(toldFile))
	must(t, slow.recordExit(Exit{Status: 5}))
	if next.has(toldFile) || next.has(exitrecord.FileName) {
		t.Error("the end of one task was noted for the next")
	}
	if _, err := slow.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if !next.has("config.json") {
		t.Error("the bundle of the next task was removed")
	}
	s.announced("/tasks/exit", "/tasks/delete")
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
				must(t, first.Observe(createEvent(t, 7)))
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
			must(t, m.add(next))
			must(t, m.Observe(exitEvent(t, 7)))
			must(t, m.Observe(deleteEvent(t, 7)))
			select {
			case <-next.Exited():
				t.Error("taken for the exit of the next one")
			default:
			}
			must(t, m.Observe(createEvent(t, 8)))
			must(t, m.Observe(exitEvent(t, 8)))
			select {
			case <-next.Exited():
			default:
				t.Error("its own exit is not known")
			}
			must(t, next.announceDelete(next.Info().Exit))
			s.announced("/tasks/exit", "/tasks/delete", "/tasks/create", "/tasks/exit", "/tasks/delete")
		})
	}
}

// TestExitOfARecoveredTask has a shim tell of an exit before the daemon has its account.
func TestExitOfARecoveredTask(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	held := m.newTask(m.bundleOf("ns", "c"), "/none/"+nativeBinary, Info{})
	held.recovered = true
	must(t, m.add(held))
	must(t, m.Observe(exitEvent(t, 7)))
	select {
	case <-held.Exited():
	default:
		t.Error("its exit is not known")
	}
	s.announced("/tasks/exit")
}
