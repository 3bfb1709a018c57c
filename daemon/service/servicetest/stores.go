// Package servicetest opens real stores for the tests of use cases: a database with two namespaces, content, events
// and the overlayfs driver. There is no runtime, so nothing runs.
package servicetest

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// Stores are the stores below Root, with the namespaces "one" and "two".
type Stores struct {
	Root    string
	DB      *metadata.DB
	Content *content.Store
	Events  *events.Log
	// Drivers has the overlayfs driver, by its name.
	Drivers map[string]snapshot.Driver

	driver *overlay.Driver
}

// Open opens the stores below root, which may have been closed before. Close them.
func Open(t testing.TB, root string) *Stores {
	t.Helper()
	s := &Stores{Root: root}
	var err error
	s.DB, err = metadata.Open(filepath.Join(root, "meta.db"))
	must(t, err)
	s.Content, err = content.Open(filepath.Join(root, "content"))
	must(t, err)
	s.Events, err = events.Open(filepath.Join(root, "events"), events.Options{})
	must(t, err)
	s.driver, err = overlay.Open(filepath.Join(root, "snapshots"))
	must(t, err)
	s.Drivers = map[string]snapshot.Driver{overlay.Name: s.driver}
	must(t, s.DB.Update(t.Context(), func(tx *metadata.Tx) error {
		for _, ns := range []string{"one", "two"} {
			if _, err := tx.Namespaces().Get(ns); err == nil {
				continue
			}
			if err := tx.Namespaces().Create(ns, nil); err != nil {
				return err
			}
		}
		return nil
	}))
	return s
}

// Close closes the stores. Nothing may use them any more.
func (s *Stores) Close(t testing.TB) {
	t.Helper()
	must(t, errors.Join(s.Events.Close(), s.driver.Close(), s.DB.Close()))
}

// Disk returns how many blobs and snapshots are on disk.
func (s *Stores) Disk(t testing.TB) (blobs, snapshots int) {
	t.Helper()
	must(t, s.Content.Walk(t.Context(), func(content.Info) error { blobs++; return nil }))
	dirs, err := filepath.Glob(filepath.Join(s.Root, "snapshots", "[0-9]*"))
	must(t, err)
	return blobs, len(dirs)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
