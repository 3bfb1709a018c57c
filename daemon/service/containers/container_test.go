package containers

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/daemon/service/activations"
	"github.com/cleatproject/cleat/daemon/service/servicetest"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/runtime"
)

// open returns the containers in real stores below root, with the tasks of a runtime, or none.
func open(t *testing.T, root string, tasks *runtime.Manager) *Service {
	t.Helper()
	stores := servicetest.Open(t, root)
	t.Cleanup(func() { stores.Close(t) })
	locks := new(keylock.Locks[string])
	mounts, err := activation.Open(filepath.Join(root, "m"), root)
	must(t, err)
	s := New(Config{
		DB: stores.DB, Events: stores.Events, Tasks: tasks, Activations: activations.New(mounts, stores.DB, tasks, locks),
		Logs: filepath.Join(root, "logs"), Locks: locks, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(s.Close)
	return s
}

// TestDeleteContainer_DeletesLog deletes by the containerd API's call what `cleat run` made.
func TestDeleteContainer_DeletesLog(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	for _, id := range []string{"gone", "stays"} {
		_, err := s.Create(t.Context(), "one", metadata.Container{ID: id, Runtime: metadata.Runtime{Name: "r"}})
		must(t, err)
		must(t, os.MkdirAll(s.logDir("one", id), 0o700))
		must(t, os.WriteFile(filepath.Join(s.logDir("one", id), "container.log"), []byte("said\n"), 0o600))
	}
	must(t, s.Delete(t.Context(), "one", "gone"))
	if _, err := os.Lstat(s.logDir("one", "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log of a deleted container: %v, want that there is none", err)
	}
	if err := s.Delete(t.Context(), "one", "never"); err == nil {
		t.Error("a container that is not there was deleted")
	}
	_, err := os.Lstat(s.logDir("one", "stays"))
	must(t, err)
}
