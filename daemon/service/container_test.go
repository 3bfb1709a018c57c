package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/metadata"
)

// TestDeleteContainerTakesItsLog deletes by the containerd API's call what `cleat run` made.
func TestDeleteContainerTakesItsLog(t *testing.T) {
	s, end := stored(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	for _, id := range []string{"gone", "stays"} {
		_, err := s.CreateContainer(t.Context(), "one", metadata.Container{ID: id, Runtime: metadata.Runtime{Name: "r"}})
		must(t, err)
		must(t, os.MkdirAll(s.logDir("one", id), 0o700))
		must(t, os.WriteFile(filepath.Join(s.logDir("one", id), "container.log"), []byte("said\n"), 0o600))
	}
	must(t, s.DeleteContainer(t.Context(), "one", "gone"))
	if _, err := os.Lstat(s.logDir("one", "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log of a deleted container: %v, want that there is none", err)
	}
	if err := s.DeleteContainer(t.Context(), "one", "never"); err == nil {
		t.Error("a container that is not there was deleted")
	}
	_, err := os.Lstat(s.logDir("one", "stays"))
	must(t, err)
}
