package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/servicetest"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// stored is a collector with real stores, which does not run by itself.
type stored struct {
	*servicetest.Stores
	*Collector
}

// open opens the stores below root; end closes them.
func open(t *testing.T, root string, opts metadata.CollectOptions) (s *stored, end func()) {
	t.Helper()
	stores := servicetest.Open(t, root)
	log := slog.New(slog.DiscardHandler)
	nothing := func(context.Context) error { return nil }
	return &stored{stores, New(Config{
		DB: stores.DB, Content: stores.Content, Blobs: blobs.New(stores.DB, stores.Content), Log: log, Options: opts,
		Snapshots: &snapshots.Store{DB: stores.DB, Drivers: stores.Drivers, Log: log}, Prepare: nothing, Release: nothing,
	})}, func() { stores.Close(t) }
}

// put writes a blob of a namespace.
func (s *stored) put(t *testing.T, namespace, text string, labels map[string]string) digest.Digest {
	t.Helper()
	w, err := s.Blobs.In(namespace).Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte(text))
	must(t, err)
	blob, err := w.CommitLabelled(t.Context(), 0, "", labels)
	must(t, err)
	return blob.Digest
}

func TestCollect_FreesUnreferencedFiles(t *testing.T) {
	s, end := open(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	shared := s.put(t, "one", "shared", nil)
	s.put(t, "two", "shared", map[string]string{metadata.LabelRoot: "1"})
	s.put(t, "one", "alone", nil)
	_, err := s.Snapshots.Prepare(t.Context(), "one", overlay.Name, metadata.Snapshot{Key: "key", Kind: snapshot.KindActive})
	must(t, err)
	dry, err := s.Garbage(t.Context())
	must(t, err)
	resp, err := s.Once(t.Context())
	must(t, err)
	if dry.Bytes != 5 || len(dry.Freed) != 3 || len(resp.Freed) != 3 || resp.Run.Removed != 3 || resp.Bytes < 5 {
		t.Errorf("announced %+v, freed %+v", dry, resp)
	}
	for _, f := range resp.Freed {
		if f.Name == shared.String() && f.Bytes != 0 {
			t.Errorf("a blob that another namespace sees counts: %+v", f)
		}
	}
	if b, d := s.Disk(t); b != 1 || d != 0 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
	if _, err := s.Blobs.In("two").Blob(t.Context(), shared); err != nil {
		t.Error(err)
	}
}

// TestCollect_Interrupted_IsCompletedByNext ends collections at each point, as a crash does, and looks
// at what is left after the next one.
func TestCollect_Interrupted_IsCompletedByNext(t *testing.T) {
	crash := errors.New("crash")
	for _, at := range []metadata.SweepStep{metadata.StepMarked, metadata.StepSweeping, metadata.StepSwept, metadata.StepCommit} {
		t.Run(string(at), func(t *testing.T) {
			root := t.TempDir()
			s, end := open(t, root, metadata.CollectOptions{Batch: 2, At: func(p metadata.SweepStep) error {
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
			if _, err := s.Stores.DB.Collect(t.Context(), s.Options); !errors.Is(err, crash) {
				t.Fatal(err)
			}
			end()
			s, end = open(t, root, metadata.CollectOptions{})
			defer end()
			_, err := s.Once(t.Context())
			must(t, err)
			if b, d := s.Disk(t); b != 1 || d != 0 {
				t.Errorf("%d blobs, %d snapshots are left", b, d)
			}
		})
	}
}

func TestCollect_CommitInProgress_KeepsBlob(t *testing.T) {
	s, end := open(t, t.TempDir(), metadata.CollectOptions{})
	defer end()
	// What a commit does up to the record.
	release := s.Blobs.KeepUnrecorded()
	w, err := s.Stores.Content.Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, err)
	must(t, w.Commit(t.Context(), 0, ""))
	collected := make(chan error, 1)
	go func() {
		_, err := s.Once(context.Background())
		collected <- err
	}()
	must(t, s.Stores.DB.Update(t.Context(), func(tx *metadata.Tx) error {
		_, err := tx.Content("one").Create(metadata.Blob{Digest: w.Digest(), Size: 4, Labels: map[string]string{metadata.LabelRoot: "1"}})
		return err
	}))
	release()
	must(t, <-collected)
	if b, _ := s.Disk(t); b != 1 {
		t.Error("the blob is gone")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
