package snapshots

import (
	"context"
	"errors"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Prepared is a snapshot whose directory exists and whose record does not yet.
type Prepared struct {
	Record  metadata.Snapshot
	Mounts  []mount.Mount
	Release func()
}

// PrepareHeld makes the directory of a snapshot on top of parent and pushes its removal. Call release once
// the record is committed or the directory is gone; pushed as well. The parent is held.
func (s *Store) PrepareHeld(ctx context.Context, hold *metadata.Hold, u *undo.Stack, d snapshot.Driver, namespace string, rec metadata.Snapshot) (*Prepared, error) {
	if _, err := SizeLimit(rec); err != nil {
		return nil, fmt.Errorf("prepare snapshot %s: %w", rec.Key, err)
	}
	hold.Snapshot(d.Name(), rec.Parent)
	var parents []uint64
	err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		parents, err = tx.Snapshots(namespace, d.Name()).ParentIDs(rec.Parent)
		return err
	})
	if err != nil {
		return nil, err
	}
	id, release := s.DB.ReserveSnapshotID()
	u.Push("release snapshot number", func() error { release(); return nil })
	if err := makeDirectory(ctx, d, id, parents, rec); err != nil {
		return nil, fmt.Errorf("prepare snapshot %s: %w", rec.Key, err)
	}
	u.Push("remove snapshot directory", func() error {
		ctx, cancel := undo.Context(ctx)
		defer cancel()
		return d.Remove(ctx, id)
	})
	mounts, err := d.Mounts(ctx, id, parents, rec.Kind)
	if err == nil {
		mounts, err = fit(ctx, mounts, rec, true)
	}
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", rec.Key, err)
	}
	rec.ID = id
	return &Prepared{Record: rec, Mounts: mounts, Release: release}, nil
}

// Prepare makes an active snapshot or a view and returns its mounts.
func (s *Store) Prepare(ctx context.Context, namespace, snapshotter string, rec metadata.Snapshot) (_ []mount.Mount, err error) {
	d, err := s.Driver(snapshotter)
	if err != nil {
		return nil, err
	}
	hold := s.DB.Hold(namespace)
	defer hold.Release()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	p, err := s.PrepareHeld(ctx, hold, &u, d, namespace, rec)
	if err != nil {
		return nil, err
	}
	err = s.DB.Update(ctx, func(tx *metadata.Tx) error {
		return Record(tx, namespace, snapshotter, p.Record)
	})
	if err != nil {
		return nil, err
	}
	u.Release()
	p.Release()
	return p.Mounts, nil
}

// labelSnapshotRef on an active snapshot that is asked for names the committed one that it is to become, as
// published.
const labelSnapshotRef = "containerd.io/snapshot.ref"

// PrepareLayer is called by daemon/api/snapshots.go: Prepare of an active snapshot, which may be for a layer. Already
// exists if that was unpacked before, which spares the client its fetch; the lease then holds it.
func (s *Store) PrepareLayer(ctx context.Context, namespace, snapshotter string, rec metadata.Snapshot) ([]mount.Mount, error) {
	if target := rec.Labels[labelSnapshotRef]; target != "" {
		if err := s.Known(snapshotter); err != nil {
			return nil, err
		}
		err := s.DB.Update(ctx, func(tx *metadata.Tx) error {
			return tx.Snapshots(namespace, snapshotter).Hold(target)
		})
		if err == nil {
			return nil, fmt.Errorf("target snapshot %q: %w", target, errdefs.ErrAlreadyExists)
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
	}
	return s.Prepare(ctx, namespace, snapshotter, rec)
}

// Record puts a prepared snapshot on record. A view is not announced, as no client is to unpack to it.
func Record(tx *metadata.Tx, namespace, snapshotter string, rec metadata.Snapshot) error {
	if _, err := tx.Snapshots(namespace, snapshotter).Create(rec); err != nil || rec.Kind == snapshot.KindView {
		return err
	}
	return announce.Add(tx, namespace, "/snapshot/prepare", &apievents.SnapshotPrepare{
		Key: rec.Key, Parent: rec.Parent, Snapshotter: snapshotter,
	})
}

// Drop deletes the record of a snapshot and returns it.
func Drop(tx *metadata.Tx, namespace, snapshotter, key string) (metadata.Snapshot, error) {
	rec, err := tx.Snapshots(namespace, snapshotter).Remove(key)
	if err != nil {
		return rec, err
	}
	return rec, announce.Add(tx, namespace, "/snapshot/remove", &apievents.SnapshotRemove{Key: key, Snapshotter: snapshotter})
}

// Mounts returns how to mount an active snapshot or view.
func (s *Store) Mounts(ctx context.Context, namespace, snapshotter, key string) ([]mount.Mount, error) {
	d, err := s.Driver(snapshotter)
	if err != nil {
		return nil, err
	}
	var rec metadata.Snapshot
	var parents []uint64
	err = s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		snaps := tx.Snapshots(namespace, snapshotter)
		if rec, err = snaps.Stat(key); err != nil {
			return err
		}
		if rec.Kind == snapshot.KindCommitted {
			return fmt.Errorf("snapshot %s is committed and has no mounts: %w", key, errdefs.ErrFailedPrecondition)
		}
		parents, err = snaps.ParentIDs(rec.Parent)
		return err
	})
	if err != nil {
		return nil, err
	}
	mounts, err := d.Mounts(ctx, rec.ID, parents, rec.Kind)
	if err == nil {
		mounts, err = fit(ctx, mounts, rec, false)
	}
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	return mounts, nil
}

// Commit turns an active snapshot into a committed one called name.
func (s *Store) Commit(ctx context.Context, namespace, snapshotter, name, key string, labels map[string]string) error {
	return s.CommitWith(ctx, namespace, snapshotter, name, key, func(snaps metadata.Snapshots, usage snapshot.Usage) error {
		_, err := snaps.Commit(name, key, usage, labels)
		return err
	})
}

// CommitWith is Commit with put in place of the change of the record.
func (s *Store) CommitWith(
	ctx context.Context, namespace, snapshotter, name, key string, put func(metadata.Snapshots, snapshot.Usage) error,
) error {
	d, err := s.Driver(snapshotter)
	if err != nil {
		return err
	}
	hold := s.DB.Hold(namespace)
	defer hold.Release()
	hold.Snapshot(snapshotter, key)
	hold.Snapshot(snapshotter, name)
	var rec metadata.Snapshot
	err = s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		snaps := tx.Snapshots(namespace, snapshotter)
		if _, err := snaps.Stat(name); err == nil {
			return fmt.Errorf("snapshot %s: %w", name, errdefs.ErrAlreadyExists)
		}
		rec, err = snaps.Stat(key)
		return err
	})
	if err != nil {
		return err
	}
	if rec.Kind != snapshot.KindActive {
		return fmt.Errorf("commit snapshot %s: it is %s, only an active one can be committed: %w", key, rec.Kind, errdefs.ErrFailedPrecondition)
	}
	usage, err := d.Commit(ctx, rec.ID)
	if err != nil {
		return fmt.Errorf("commit snapshot %s: %w", key, err)
	}
	return s.DB.Update(ctx, func(tx *metadata.Tx) error {
		if err := put(tx.Snapshots(namespace, snapshotter), usage); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/snapshot/commit", &apievents.SnapshotCommit{Key: key, Name: name, Snapshotter: snapshotter})
	})
}

// Remove removes the record, then the directory.
func (s *Store) Remove(ctx context.Context, namespace, snapshotter, key string) error {
	d, err := s.Driver(snapshotter)
	if err != nil {
		return err
	}
	var rec metadata.Snapshot
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = Drop(tx, namespace, snapshotter, key)
		return err
	})
	if err != nil {
		return err
	}
	s.RemoveDirectory(ctx, d, rec.ID)
	return nil
}

// RemoveDirectory removes a directory without a record. A failure is not an error of the request:
// the next start's clean-up gets it.
func (s *Store) RemoveDirectory(ctx context.Context, d snapshot.Driver, id uint64) {
	if err := d.Remove(context.WithoutCancel(ctx), id); err != nil {
		s.Log.Warn("cannot remove a snapshot's directory, left to the next start", "snapshotter", d.Name(), "id", id, "error", err)
	}
}

// Usage measures a snapshot; a committed one's measure is on record.
func (s *Store) Usage(ctx context.Context, namespace, snapshotter, key string) (snapshot.Usage, error) {
	d, err := s.Driver(snapshotter)
	if err != nil {
		return snapshot.Usage{}, err
	}
	var rec metadata.Snapshot
	err = s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = tx.Snapshots(namespace, snapshotter).Stat(key)
		return err
	})
	if err != nil {
		return snapshot.Usage{}, err
	}
	if rec.Kind == snapshot.KindCommitted {
		return snapshot.Usage{Size: rec.Size, Inodes: rec.Inodes}, nil
	}
	u, err := d.Usage(ctx, rec.ID)
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return u, nil
}

// Clean removes directories of every snapshotter that have no record; at start, after crashes.
func (s *Store) Clean(ctx context.Context) error {
	var errs error
	for name := range s.Drivers {
		errs = errors.Join(errs, s.CleanDriver(ctx, name))
	}
	return errs
}

// CleanDriver removes directories of one snapshotter that have no record.
func (s *Store) CleanDriver(ctx context.Context, name string) error {
	d, err := s.Driver(name)
	if err != nil {
		return err
	}
	gone, err := s.RemoveUnrecorded(ctx, d)
	if len(gone) > 0 {
		s.Log.Info("removed snapshots that have no record", "snapshotter", name, "count", len(gone))
	}
	if err != nil {
		return fmt.Errorf("clean up snapshotter %s: %w", name, err)
	}
	return nil
}

// RemoveUnrecorded removes the directories of a driver that have no record, and returns their numbers,
// also if it fails with some of them left.
func (s *Store) RemoveUnrecorded(ctx context.Context, d snapshot.Driver) (gone []uint64, err error) {
	live, err := s.DB.LiveSnapshots(ctx, d.Name())
	if err != nil {
		return nil, err
	}
	return d.Cleanup(ctx, live)
}
