package metadata

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/snapshot"
)

// TestInspect_ReportsEveryProblem writes records past the tables, as damage or a faulty writer
// would.
func TestInspect_ReportsEveryProblem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error {
		if err := tx.Namespaces().Create("ns", nil); err != nil {
			return err
		}
		s := tx.Snapshots("ns", "overlayfs")
		if _, err := s.Create(Snapshot{Key: "base", Kind: snapshot.KindActive, ID: 1}); err != nil {
			return err
		}
		if _, err := s.Commit("layer", "base", snapshot.Usage{}, nil); err != nil {
			return err
		}
		_, err := s.Create(Snapshot{Key: "top", Parent: "layer", Kind: snapshot.KindActive, ID: 2})
		return err
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if findings, err := Inspect(path); err != nil || len(findings) != 0 {
		t.Fatalf("a whole file: %v %v", findings, err)
	}
	raw, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Update(func(tx *bolt.Tx) error {
		ns := tx.Bucket([]byte("cleat")).Bucket([]byte("namespaces")).Bucket([]byte("ns"))
		images, err := ns.CreateBucket([]byte("images"))
		if err != nil {
			return err
		}
		names := scopeOf("namespaces", "ns", "images")
		return errors.Join(
			images.Put([]byte("bare"), encodeImage(&Image{Name: "bare"})),
			images.Put([]byte("moved"), names.seal("elsewhere", encodeImage(&Image{Name: "moved"}))),
			images.Put([]byte("garbled"), names.seal("garbled", []byte{0xff})),
			ns.Bucket([]byte("snapshots")).Bucket([]byte("overlayfs")).Delete([]byte("layer")),
			ns.Bucket([]byte("children")).Bucket([]byte("overlayfs")).Put([]byte("a\x00b"), scopeOf("namespaces", "ns", "children", "overlayfs").seal("a\x00b", nil)),
		)
	})
	if err = errors.Join(err, raw.Close()); err != nil {
		t.Fatal(err)
	}
	findings, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range findings {
		text.WriteString(f.String() + "\n")
	}
	for _, want := range []string{"images/bare\": record is damaged: seal missing", "images/moved\": record is damaged: seal invalid", "images/garbled\": record is damaged", `parent "layer" has no record`, "snapshot of this link has no record"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("not reported: %s", want)
		}
	}
	if len(findings) != 5 {
		t.Errorf("%d findings, want 5:\n%s", len(findings), text.String())
	}
	if _, err := Open(path); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "images/") {
		t.Errorf("open: %v", err)
	}
}

func TestInspect_ReadOnly_ChangesNothing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "meta.db")
	if _, err := OpenWith(missing, Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Error("opening it made it")
	}
	old := copyFixture(t, 1)
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWith(old, Options{ReadOnly: true}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an older file: %v", err)
	}
	if after, err := os.ReadFile(old); err != nil || string(after) != string(before) {
		t.Errorf("the older file changed, or %v", err)
	}
	db := openTest(t)
	path := db.path
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	one, err := OpenWith(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	two, err := OpenWith(path, Options{ReadOnly: true}) // next to the first
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Update(context.Background(), func(*Tx) error { return nil }); err == nil {
		t.Error("an update of a read-only database passed")
	}
	view(t, two, func(tx *Tx) error { _, err := tx.Namespaces().Get("ns"); return err })
	if err := errors.Join(one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
}
