package containers

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/runtime"
)

// TestResume_RecordedExit_RemovesTask has the daemon before die between putting an exit on record and
// taking the task away.
func TestResume_RecordedExit_RemovesTask(t *testing.T) {
	root := t.TempDir()
	c := metadata.Container{ID: "c", Runtime: metadata.Runtime{Name: "r"}}
	must(t, setRecord(&c, &runRecord{Exit: &runExit{Status: 5, At: time.Now(), Pid: 7}}))
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
	tasks, err := runtime.New(runtime.Config{
		State: filepath.Join(root, "state"), Root: root, Reaper: r, Log: slog.New(slog.DiscardHandler),
		Publish: func(e events.Event) error {
			if e.Topic == "/tasks/delete" {
				close(gone)
			}
			return nil
		},
	})
	must(t, err)
	defer func() { must(t, tasks.Close()) }()
	s := open(t, root, tasks)
	_, err = s.Create(t.Context(), "one", c)
	must(t, err)
	must(t, tasks.Recover(nil))
	must(t, s.Resume(t.Context()))
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Fatal("the task stays")
	}
	s.Close() // waits for who took it away
	if list := tasks.List(""); len(list) != 0 {
		t.Errorf("%d tasks are left", len(list))
	}
	if r, err := s.Get(t.Context(), "one", "c"); err != nil || r.ID != "c" {
		t.Errorf("the record: %+v, %v", r, err)
	}
}
