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

// TestEnd_ShimAndDaemonDie_IsPublishedOnce has one daemon publish what a shim reports, and the next find the shim dead.
func TestEnd_ShimAndDaemonDie_IsPublishedOnce(t *testing.T) {
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
			want := []string{"/tasks/exit"}
			if deleted {
				must(t, first.Observe(deleteEvent(t, 7)))
				want = append(want, "/tasks/delete")
			}
			must(t, first.Close())
			end()

			second := s.manager()
			must(t, second.Recover(nil))
			dead := s.task(second, "the shim is known to be dead", isDead)
			s.published(want...)
			if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
				t.Errorf("delete: %+v, %v", e, err)
			}
			s.published("/tasks/exit", "/tasks/delete")
		})
	}
}

// TestEmptyShim_EndIsPublishedOnce has a daemon find a shim without a container: it has deleted it for an earlier
// daemon, and reported exit and deletion; or it was to adopt it, and was too late.
func TestEmptyShim_EndIsPublishedOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		revived bool
		want    []string
	}{
		"deleted": {},
		"revived": {true, []string{"/tasks/exit", "/tasks/delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.manager()
			s.ended(s.bundle(m, bundleState{Committed: true, Phase: reported, Revived: tc.revived}))
			s.shim(false, refuse)
			must(t, m.Recover(nil))
			dead := s.task(m, "the shim is known to be empty", isDead)
			if e, err := dead.Delete(t.Context()); err != nil || e.Status != 5 {
				t.Errorf("delete: %+v, %v", e, err)
			}
			s.published(tc.want...)
		})
	}
}

// TestRevivedShim_Adopts_ReportsEnd has a new shim come in time: it reports the deletion itself.
func TestRevivedShim_Adopts_ReportsEnd(t *testing.T) {
	s := newScene(t)
	first := s.manager()
	b := s.bundle(first, bundleState{Committed: true, Phase: reported, Revived: true})
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
	s.published()
}

// TestDeletedTask_DoesNotWriteToNextBundle uses a deleted task after the next one of its name has its bundle.
func TestDeletedTask_DoesNotWriteToNextBundle(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	s.ended(s.bundle(m))
	must(t, m.Recover(nil))
	slow := s.task(m, "the shim is known to be dead", isDead)
	if _, err := slow.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := s.bundle(m)
	must(t, slow.setRevived(true))
	must(t, slow.recordExit(Exit{Status: 5}))
	if state, err := next.readState(); err != nil || state.Revived || next.has(exitrecord.FileName) {
		t.Errorf("the end of one task was written for the next: %+v, %v", state, err)
	}
	if _, err := slow.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if !next.has(shimBinaryFile) {
		t.Error("the bundle of the next task was removed")
	}
	s.published("/tasks/exit", "/tasks/delete")
}

// TestIncompleteTask_CreatePublished_EndIsPublished has daemon and shim die before a request is answered.
func TestIncompleteTask_CreatePublished_EndIsPublished(t *testing.T) {
	for name, created := range map[string]bool{"published": true, "not published": false} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			first := s.manager()
			b := s.bundle(first, bundleState{})
			s.ended(b)
			var want []string
			if created {
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
			s.published(want...)
		})
	}
}

// TestDelete_ClientLeaves_Completes has the client leave while the shim deletes.
func TestDelete_ClientLeaves_Completes(t *testing.T) {
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

// TestDelete_ShimDies has the shim die while it deletes.
func TestDelete_ShimDies(t *testing.T) {
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
	s.published("/tasks/exit", "/tasks/delete")
}

// TestExitEvent_OfEarlierTask_IsIgnored has a shim report an exit when the next container of that name is being
// created, and when it runs.
func TestExitEvent_OfEarlierTask_IsIgnored(t *testing.T) {
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
				t.Error("treated as the exit of the next one")
			default:
			}
			must(t, m.Observe(createEvent(t, 8)))
			must(t, m.Observe(exitEvent(t, 8)))
			select {
			case <-next.Exited():
			default:
				t.Error("its own exit is not known")
			}
			must(t, next.advance(evRemoved, next.Info().Exit, nil))
			s.published("/tasks/exit", "/tasks/delete", "/tasks/create", "/tasks/exit", "/tasks/delete")
		})
	}
}

// TestExitEvent_BeforeAdoption_IsKnown has a shim report an exit before the daemon has its status.
func TestExitEvent_BeforeAdoption_IsKnown(t *testing.T) {
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
	s.published("/tasks/exit")
}
