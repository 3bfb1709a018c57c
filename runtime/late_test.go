package runtime

import (
	"context"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// TestCalls_DuringAndAfterDelete makes calls while the shim exits, and after that.
func TestCalls_DuringAndAfterDelete(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	s.bundle(m)
	killing, leaving := make(chan struct{}), make(chan struct{})
	s.kill = func() error {
		close(killing)
		<-leaving
		return errdefs.ErrUnavailable // like a connection that ends
	}
	end := s.shim(true, func(context.Context) (*task.DeleteResponse, error) {
		return &task.DeleteResponse{Pid: 7, ExitStatus: 5, ExitedAt: types.FromTime(time.Now())}, nil
	})
	must(t, m.Recover(nil))
	held := s.task(m, "the shim is adopted", isReady)
	killed := make(chan error, 1)
	go func() { killed <- held.Kill(context.Background(), "", uint32(unix.SIGKILL), false) }()
	<-killing
	if _, err := held.Delete(t.Context()); err != nil {
		t.Errorf("delete: %v", err)
	}
	close(leaving)
	if err := <-killed; !errdefs.IsNotFound(err) {
		t.Errorf("a pending kill: %v; want not found", err)
	}
	end()
	if err := held.Pause(t.Context()); !errdefs.IsNotFound(err) {
		t.Errorf("a later pause: %v; want not found", err)
	}
}

// TestCall_WaitingForShim_EndsWithTask deletes the task while a call waits for the shim to be reached.
func TestCall_WaitingForShim_EndsWithTask(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	held := m.newTask(s.bundle(m), "/none/"+nativeBinary, Info{Link: Connecting})
	paused := make(chan error, 1)
	go func() { paused <- held.Pause(context.Background()) }()
	held.setRemoving()
	if err := <-paused; !errdefs.IsNotFound(err) {
		t.Errorf("pause: %v; want not found", err)
	}
}
