package snapshots

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
)

// LabelStorageSize on an active snapshot limits what it holds on disk: bytes, or a size such as 10GiB. The
// file system keeps the limit; the label says that there is one, and how much.
const LabelStorageSize = "containerd.io/snapshot/cleat.storage-size"

// SizeLimit reads the label of a snapshot that is to be made; 0 where there is none.
func SizeLimit(rec metadata.Snapshot) (int64, error) {
	text, ok := rec.Labels[LabelStorageSize]
	if !ok || text == "" { // as for every label, an empty value is none
		return 0, nil
	}
	bytes, err := snapshot.ParseLimit(text)
	if err == nil && rec.Kind != snapshot.KindActive {
		err = fmt.Errorf("only an active snapshot is written to and can be limited, not a %s: %w", rec.Kind, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return 0, fmt.Errorf("label %s: %w", LabelStorageSize, err)
	}
	return bytes, nil
}

// limited returns a driver that keeps limits.
func limited(d snapshot.Driver) (snapshot.Limited, error) {
	l, ok := d.(snapshot.Limited)
	if !ok {
		return nil, fmt.Errorf("snapshotter %s cannot limit storage: %w", d.Name(), errdefs.ErrFailedPrecondition)
	}
	return l, nil
}

// makeDirectory has a driver make a snapshot with the limit that its labels ask for.
func makeDirectory(ctx context.Context, d snapshot.Driver, id uint64, parents []uint64, rec metadata.Snapshot) error {
	bytes, err := SizeLimit(rec)
	if err != nil {
		return err
	}
	if bytes == 0 {
		return d.Prepare(ctx, id, parents, rec.Kind)
	}
	l, err := limited(d)
	if err != nil {
		return err
	}
	return l.PrepareLimited(ctx, id, parents, bytes)
}

// Update is called by daemon/api/snapshots.go: it changes labels, as metadata.Snapshots.Update
// does, and with the label of a limit the limit. A snapshot that was made without a limit gets none.
func (s *Store) Update(
	ctx context.Context, namespace, snapshotter string, v metadata.Snapshot, paths []string,
) (rec metadata.Snapshot, err error) {
	revert := func() error { return nil }
	if touches(paths, LabelStorageSize) {
		s.limiting.Lock()
		defer s.limiting.Unlock()
		if revert, err = s.changeLimit(ctx, namespace, snapshotter, v); err != nil {
			return rec, fmt.Errorf("update snapshot %s: %w", v.Key, err)
		}
	}
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = tx.Snapshots(namespace, snapshotter).Update(v, paths...)
		return err
	})
	if err != nil {
		return rec, errors.Join(err, revert())
	}
	return rec, nil
}

// touches reports whether an update of some paths changes a label.
func touches(paths []string, label string) bool {
	return len(paths) == 0 || slices.Contains(paths, "labels") || slices.Contains(paths, "labels."+label)
}

// changeLimit makes the limit of a snapshot what the labels of v say, and returns how to take that back.
func (s *Store) changeLimit(ctx context.Context, namespace, snapshotter string, v metadata.Snapshot) (revert func() error, err error) {
	revert = func() error { return nil }
	var rec metadata.Snapshot
	err = s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = tx.Snapshots(namespace, snapshotter).Stat(v.Key)
		return err
	})
	if err != nil {
		return revert, err
	}
	old, next := rec, rec
	next.Labels = v.Labels
	if old.Labels[LabelStorageSize] == next.Labels[LabelStorageSize] {
		return revert, nil
	}
	before, err := SizeLimit(old)
	if err != nil {
		return revert, err
	}
	after, err := SizeLimit(next)
	if err != nil {
		return revert, err
	}
	d, err := s.Driver(snapshotter)
	if err != nil {
		return revert, err
	}
	l, err := limited(d)
	if err != nil {
		return revert, err
	}
	revert = func() error {
		ctx, cancel := undo.Context(ctx)
		defer cancel()
		return l.SetLimit(ctx, rec.ID, before)
	}
	return revert, l.SetLimit(ctx, rec.ID, after)
}

// RestoreLimits sets the limits on record again, at start: a crash may have come between a limit's change
// and its record's, and quotas may have been off for a while. Snapshots that cannot be limited now are reported.
func (s *Store) RestoreLimits(ctx context.Context) error {
	namespaces, err := s.DB.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	s.limiting.Lock()
	defer s.limiting.Unlock()
	var errs error
	for _, ns := range namespaces {
		for name, d := range s.Drivers {
			l, ok := d.(snapshot.Limited)
			if !ok {
				continue
			}
			var list []metadata.Snapshot
			err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
				list, err = tx.Snapshots(ns, name).List(`kind==active,labels."` + LabelStorageSize + `"`)
				return err
			})
			errs = errors.Join(errs, err)
			for _, rec := range list {
				errs = errors.Join(errs, restoreLimit(ctx, l, rec))
			}
		}
	}
	return errs
}

func restoreLimit(ctx context.Context, l snapshot.Limited, rec metadata.Snapshot) error {
	bytes, err := SizeLimit(rec)
	if err == nil {
		err = undo.Ignore(l.SetLimit(ctx, rec.ID, bytes), errdefs.ErrNotFound) // it was removed concurrently
	}
	if err != nil {
		return fmt.Errorf("limit of snapshot %s: %w", rec.Key, err)
	}
	return nil
}
