package service

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/runtime"
)

// TestResumeTakesAwayATaskWhoseExitIsOnRecord has the daemon before die between putting an exit on record and
// taking the task away.
func TestResumeTakesAwayATaskWhoseExitIsOnRecord(t *testing.T) {
	root := t.TempDir()
	s, end := stored(t, root, metadata.CollectOptions{})
	defer end()
	c := metadata.Container{ID: "c", Runtime: metadata.Runtime{Name: "r"}}
	must(t, setRecord(&c, &runRecord{Exit: &runExit{Status: 5, At: time.Now(), Pid: 7}}))
	_, err := s.CreateContainer(t.Context(), "one", c)
	must(t, err)

	bundle := filepath.Join(root, "state", "io.containerd.runtime.v2.task", "one", "c")
	must(t, os.MkdirAll(bundle, 0o700))
	for name, text := range map[string]string{
		"shim-binary-path": "/none/containerd-shim-cleat-v2",
		"bootstrap.json":   `{"version":3,"address":"unix:///none/shim.sock","protocol":"ttrpc","cleat":true}`,
	} {
		must(t, os.WriteFile(filepath.Join(bundle, name), []byte(text), 0o600))
	}
	must(t, exitrecord.Write(bundle, exitrecord.Record{ID: "c", Pid: 7, Status: 5, ExitedAt: time.Now()}))
	r := reaper.New()
	defer func() { must(t, r.Close()) }()
	gone := make(chan struct{})
	s.Runtime, err = runtime.New(runtime.Config{
		State: filepath.Join(root, "state"), Root: root, Reaper: r, Log: slog.New(slog.DiscardHandler),
		Publish: func(e events.Event) error {
			if e.Topic == "/tasks/delete" {
				close(gone)
			}
			return nil
		},
	})
	must(t, err)
	defer func() { must(t, s.Runtime.Close()) }()
	must(t, s.Runtime.Recover(nil))
	must(t, s.Resume(t.Context()))
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Fatal("the task stays")
	}
	s.Close() // waits for who took it away
	if list := s.Runtime.List(""); len(list) != 0 {
		t.Errorf("%d tasks are left", len(list))
	}
	if r, err := s.Container(t.Context(), "one", "c"); err != nil || r.ID != "c" {
		t.Errorf("the record: %+v, %v", r, err)
	}
}

func TestRecoveries_HaveOneOrder(t *testing.T) {
	for range 10 {
		var got []string
		for _, r := range new(Service).recoveries() {
			got = append(got, r.what)
		}
		want := []string{"resume frozen containers", "resume containers", "restore storage limits", "clean up snapshots"}
		if !slices.Equal(got, want) {
			t.Fatalf("order %q, want %q", got, want)
		}
	}
}
