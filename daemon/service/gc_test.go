package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// stored is a Service with real stores and no runtime.
func stored(t *testing.T, root string, opts metadata.CollectOptions) (*Service, func()) {
	t.Helper()
	db, err := metadata.Open(filepath.Join(root, "meta.db"))
	must(t, err)
	store, err := content.Open(filepath.Join(root, "content"))
	must(t, err)
	log, err := events.Open(filepath.Join(root, "events"), events.Options{})
	must(t, err)
	driver, err := overlay.Open(filepath.Join(root, "snapshots"))
	must(t, err)
	mounts, err := activation.Open(filepath.Join(root, "m"), root)
	must(t, err)
	s := New(Config{
		Mounts: mounts, DB: db, Content: store, Events: log, Snapshotters: map[string]snapshot.Driver{overlay.Name: driver},
		DefaultSnapshotter: overlay.Name, Root: root, CgroupParent: "/cleat-test-none", Collecting: opts,
		Log: slog.New(slog.DiscardHandler),
	})
	for _, ns := range []string{"one", "two"} {
		must(t, s.EnsureNamespace(t.Context(), ns))
	}
	return s, func() {
		s.Close()
		must(t, errors.Join(log.Close(), driver.Close(), db.Close()))
	}
}

func (s *Service) put(t *testing.T, namespace, text string, labels map[string]string) digest.Digest {
	t.Helper()
	w, err := s.Blobs(namespace).Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte(text))
	must(t, err)
	blob, err := w.CommitLabelled(t.Context(), 0, "", labels)
	must(t, err)
	return blob.Digest
}

// disk lists blobs and snapshots on disk.
func (s *Service) disk(t *testing.T) (blobs, snapshots int) {
	t.Helper()
	must(t, s.Content.Walk(t.Context(), func(content.Info) error { blobs++; return nil }))
	dirs, err := filepath.Glob(filepath.Join(s.Root, "snapshots", "[0-9]*"))
	must(t, err)
	return blobs, len(dirs)
}

func TestCollectGarbageFreesWhatNobodySees(t *testing.T) {
	s, end := stored(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	shared := s.put(t, "one", "shared", nil)
	s.put(t, "two", "shared", map[string]string{metadata.LabelRoot: "1"})
	s.put(t, "one", "alone", nil)
	_, err := s.Snapshots.Prepare(t.Context(), "one", overlay.Name, metadata.Snapshot{Key: "key", Kind: snapshot.KindActive})
	must(t, err)
	dry, err := s.GC.Garbage(t.Context())
	must(t, err)
	resp, err := s.GC.Once(t.Context())
	must(t, err)
	if dry.Bytes != 5 || len(dry.Freed) != 3 || len(resp.Freed) != 3 || resp.Run.Removed != 3 || resp.Bytes < 5 {
		t.Errorf("announced %+v, freed %+v", dry, resp)
	}
	for _, f := range resp.Freed {
		if f.Name == shared.String() && f.Bytes != 0 {
			t.Errorf("a blob that another namespace sees counts: %+v", f)
		}
	}
	if b, d := s.disk(t); b != 1 || d != 0 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
	if _, err := s.Blobs("two").Blob(t.Context(), shared); err != nil {
		t.Error(err)
	}
}

// TestCollectionThatBreaksOffIsMadeUpFor ends collections at each point, as a crash does, and looks
// at what is left after the next one.
func TestCollectionThatBreaksOffIsMadeUpFor(t *testing.T) {
	crash := errors.New("crash")
	for _, at := range []metadata.SweepStep{metadata.StepMarked, metadata.StepSweeping, metadata.StepSwept, metadata.StepCommit} {
		t.Run(string(at), func(t *testing.T) {
			root := t.TempDir()
			s, end := stored(t, root, metadata.CollectOptions{Batch: 2, At: func(p metadata.SweepStep) error {
				if p == at {
					return crash
				}
				return nil
			}})
			s.put(t, "one", "kept", map[string]string{metadata.LabelRoot: "1"})
			for i := range 5 {
				s.put(t, "one", fmt.Sprint(i), nil)
				_, err := s.Snapshots.Prepare(t.Context(), "one", overlay.Name, metadata.Snapshot{Key: fmt.Sprint(i), Kind: snapshot.KindActive})
				must(t, err)
			}
			// The process ends after the records are gone, before a file is.
			if _, err := s.DB.Collect(t.Context(), s.GC.Options); !errors.Is(err, crash) {
				t.Fatal(err)
			}
			end()
			s, end = stored(t, root, metadata.CollectOptions{})
			defer end()
			_, err := s.GC.Once(t.Context())
			must(t, err)
			if b, d := s.disk(t); b != 1 || d != 0 {
				t.Errorf("%d blobs, %d snapshots are left", b, d)
			}
		})
	}
}

func TestBlobWhoseCommitIsUnderWayIsNoOrphan(t *testing.T) {
	s, end := stored(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	// What a commit does up to the record.
	release := s.blobs.KeepUnrecorded()
	w, err := s.Content.Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, err)
	must(t, w.Commit(t.Context(), 0, ""))
	collected := make(chan error, 1)
	go func() {
		_, err := s.GC.Once(context.Background())
		collected <- err
	}()
	must(t, s.DB.Update(t.Context(), func(tx *metadata.Tx) error {
		_, err := tx.Content("one").Create(metadata.Blob{Digest: w.Digest(), Size: 4, Labels: map[string]string{metadata.LabelRoot: "1"}})
		return err
	}))
	release()
	must(t, <-collected)
	if b, _ := s.disk(t); b != 1 {
		t.Error("the blob is gone")
	}
}

func TestWhatHeldCallsWorkWithStays(t *testing.T) {
	s, end := stored(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	hold := s.DB.Hold("one")
	in := ingester{s.Blobs("one"), hold}
	w, err := in.Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, err)
	must(t, w.Commit(t.Context(), 0, ""))
	must(t, w.Close())
	l := &layers{s, "one", overlay.Name, hold}
	_, err = l.Prepare(t.Context(), "key", "")
	must(t, err)
	_, err = s.GC.Once(t.Context())
	must(t, err)
	must(t, l.Commit(t.Context(), "name", "key"))
	_, err = s.GC.Once(t.Context())
	must(t, err)
	if b, d := s.disk(t); b != 1 || d != 1 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
	kept, err := s.Why(t.Context(), "one", "name")
	if err != nil || len(kept) != 1 || kept[0].Chain[0].Via != "held" {
		t.Errorf("%+v %v", kept, err)
	}
	hold.Release()
	_, err = s.GC.Once(t.Context())
	must(t, err)
	if b, d := s.disk(t); b != 0 || d != 0 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
}
