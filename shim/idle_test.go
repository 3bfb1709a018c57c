package shim

import (
	"io"
	"testing"
	"time"

	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/reaper"
)

func idleServer(t *testing.T) *Server {
	t.Helper()
	r := reaper.New()
	t.Cleanup(func() { _ = r.Close() })
	log := &logger{out: io.Discard}
	events := newPublisher("test", "", "", "", newMonitor(r, nil), log)
	t.Cleanup(events.close)
	s := newServer("test", "dev", events.monitor, events, log)
	t.Cleanup(func() { s.idle.Stop() })
	return s
}

// A shim whose daemon died before Create, or after Delete, exits; one in use stays.
func TestIdleShim_Exits(t *testing.T) {
	s := idleServer(t)
	s.connected()
	s.idled()
	if s.leaving() {
		t.Fatal("it left under a connection")
	}
	c := &container{id: "a"}
	if err := s.add(c); err != nil {
		t.Fatal(err)
	}
	s.disconnected()
	s.idled()
	if s.leaving() {
		t.Fatal("it left its container")
	}
	s.remove(c)
	if _, err := s.CreateSandbox(t.Context(), &sandbox.CreateSandboxRequest{SandboxId: "pod"}); err != nil {
		t.Fatal(err)
	}
	s.idled()
	if _, err := s.Shutdown(t.Context(), &task.ShutdownRequest{}); err != nil || s.leaving() {
		t.Fatalf("it left its sandbox (%v)", err)
	}
	s.pod = nil
	s.idle.Reset(0)
	select {
	case <-s.quit:
	case <-time.After(time.Minute):
		t.Fatal("it does not leave")
	}
	if err := s.add(c); err == nil {
		t.Error("a container was added to a shim that leaves")
	}
}
