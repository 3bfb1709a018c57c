package metadata

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

func TestSnapshots(t *testing.T) {
	db := openTest(t)
	add := func(key, parent string, kind snapshot.Kind) uint64 {
		t.Helper()
		id, release := db.ReserveSnapshotID()
		defer release()
		update(t, db, func(tx *Tx) error {
			_, err := tx.Snapshots("ns", "overlayfs").Create(Snapshot{Key: key, Parent: parent, Kind: kind, ID: id})
			return err
		})
		return id
	}
	commit := func(name, key string) {
		t.Helper()
		update(t, db, func(tx *Tx) error {
			v, err := tx.Snapshots("ns", "overlayfs").Commit(name, key, snapshot.Usage{Size: 3, Inodes: 2}, nil)
			if v.Key != name || v.Kind != snapshot.KindCommitted || v.Size != 3 {
				t.Errorf("got %+v", v)
			}
			return err
		})
	}
	a := add("a-key", "", snapshot.KindActive)
	refused(t, db, errdefs.IsFailedPrecondition, func(tx *Tx) error {
		_, err := tx.Snapshots("ns", "overlayfs").ParentIDs("a-key")
		return err
	})
	commit("a", "a-key")
	b := add("b-key", "a", snapshot.KindActive)
	commit("b", "b-key")
	add("view", "b", snapshot.KindView)
	view(t, db, func(tx *Tx) error {
		ids, err := tx.Snapshots("ns", "overlayfs").ParentIDs("b")
		if !slices.Equal(ids, []uint64{b, a}) {
			t.Errorf("chain %v, want %v %v", ids, b, a)
		}
		return err
	})
	s := func(tx *Tx) Snapshots { return tx.Snapshots("ns", "overlayfs") }
	refused(t, db, errdefs.IsFailedPrecondition, func(tx *Tx) error { _, err := s(tx).Remove("a"); return err })
	refused(t, db, errdefs.IsFailedPrecondition, func(tx *Tx) error {
		_, err := s(tx).Commit("v", "view", snapshot.Usage{}, nil)
		return err
	})
	refused(t, db, errdefs.IsAlreadyExists, func(tx *Tx) error {
		_, err := s(tx).Create(Snapshot{Key: "a", Kind: snapshot.KindActive, ID: 99})
		return err
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error {
		_, err := s(tx).Create(Snapshot{Key: "x", Parent: "none", Kind: snapshot.KindActive, ID: 99})
		return err
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { _, err := tx.Snapshots("ns", "other").Stat("a"); return err })
	update(t, db, func(tx *Tx) error {
		for _, key := range []string{"view", "b", "a"} {
			if _, err := s(tx).Remove(key); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestSnapshotIDs_NotReused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	var highest uint64
	for range 3 {
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = db.Update(context.Background(), func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) })
		id, release := db.ReserveSnapshotID()
		if id <= highest {
			t.Errorf("number %d was used before", id)
		}
		highest = id
		update(t, db, func(tx *Tx) error {
			s := tx.Snapshots("ns", "overlayfs")
			if _, err := s.Create(Snapshot{Key: "k", Kind: snapshot.KindActive, ID: id}); err != nil {
				return err
			}
			_, err := s.Remove("k")
			return err
		})
		release()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLiveSnapshots(t *testing.T) {
	db := openTest(t)
	recorded, release := db.ReserveSnapshotID()
	update(t, db, func(tx *Tx) error {
		_, err := tx.Snapshots("ns", "overlayfs").Create(Snapshot{Key: "k", Kind: snapshot.KindActive, ID: recorded})
		return err
	})
	release()
	dropped, release := db.ReserveSnapshotID()
	release()
	reserved, release := db.ReserveSnapshotID()
	defer release()
	live, err := db.LiveSnapshots(context.Background(), "overlayfs")
	if err != nil {
		t.Fatal(err)
	}
	later, release2 := db.ReserveSnapshotID()
	defer release2()
	for id, want := range map[uint64]bool{recorded: true, dropped: false, reserved: true, later: true} {
		if live(id) != want {
			t.Errorf("number %d live: %v, want %v", id, !want, want)
		}
	}
}
