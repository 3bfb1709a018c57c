package images

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// ingester is the content of a namespace as package image writes to it. It holds what is written,
// or found to be there, until an image refers to it.
type ingester struct {
	*blobs.View
	hold *metadata.Hold
}

var _ image.Content = ingester{}

// Content returns the content of a namespace as package image writes it: what is written, or found, is held. A
// commit that has begun is finished even if its context ends.
func (s *Store) Content(namespace string, hold *metadata.Hold) image.Content {
	return ingester{s.blobs.In(namespace), hold}
}

// Writer implements image.Ingester.
func (i ingester) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	i.hold.Content(opts.Expected.String())
	w, err := i.View.Writer(ctx, ref, opts)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return nil, err
	}
	if err != nil { // it may have been made before the caller left
		return nil, errors.Join(err, undo.Ignore(i.View.Abort(context.WithoutCancel(ctx), ref), errdefs.ErrNotFound))
	}
	return heldWriter{w, i.hold}, nil
}

// Abort implements image.Ingester. The writer's Close has done it already.
func (i ingester) Abort(ctx context.Context, ref string) error {
	return undo.Ignore(i.View.Abort(ctx, ref), errdefs.ErrNotFound)
}

// heldWriter holds what it commits, from before the blob exists. It discards what it does not commit: the ingest
// of an import is never resumed, so it need not be written to disk.
type heldWriter struct {
	*blobs.BlobWriter
	hold *metadata.Hold
}

// Commit implements image.BlobWriter.
func (w heldWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	w.hold.Content(w.Digest().String())
	w.hold.Content(expected.String())
	_, err := w.CommitWhole(ctx, size, expected, nil)
	return err
}

// Close implements image.BlobWriter.
func (w heldWriter) Close() error { return w.Discard() }

// LabelUnpacking marks a snapshot that exists for the length of one call. CleanUnpacks removes those that a crash left.
const LabelUnpacking = "cleat.io/unpacking"

// layers are the snapshots of a namespace as package image makes them. Those that are looked for or
// made are held.
type layers struct {
	s                      *Store
	namespace, snapshotter string
	hold                   *metadata.Hold
}

var _ image.Stacker = (*layers)(nil)

// Exists implements image.Snapshots.
func (l *layers) Exists(ctx context.Context, name string) (bool, error) {
	l.hold.Snapshot(l.snapshotter, name)
	var rec metadata.Snapshot
	err := l.s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = tx.Snapshots(l.namespace, l.snapshotter).Stat(name)
		return err
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	return err == nil && rec.Kind == snapshot.KindCommitted, err
}

// Prepare implements image.Snapshots.
func (l *layers) Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error) {
	l.hold.Snapshot(l.snapshotter, key)
	return l.s.snapshots.Prepare(ctx, l.namespace, l.snapshotter, metadata.Snapshot{
		Key: key, Parent: parent, Kind: snapshot.KindActive, Labels: map[string]string{LabelUnpacking: "true"},
	})
}

// Commit implements image.Snapshots.
func (l *layers) Commit(ctx context.Context, name, key string) error {
	l.hold.Snapshot(l.snapshotter, name)
	return l.s.snapshots.Commit(ctx, l.namespace, l.snapshotter, name, key, nil)
}

// Layered implements image.Stacker.
func (l *layers) Layered() (userXattr, ok bool) {
	d, ok := l.s.snapshots.Drivers[l.snapshotter].(snapshot.Layered)
	return ok && d.UserXattr(), ok
}

// CommitOn implements image.Stacker.
func (l *layers) CommitOn(ctx context.Context, name, key, parent string) error {
	return l.s.snapshots.CommitWith(ctx, l.namespace, l.snapshotter, name, key, func(snaps metadata.Snapshots, usage snapshot.Usage) error {
		_, err := snaps.CommitOn(name, key, parent, usage, nil)
		return err
	})
}

// Remove implements image.Snapshots.
func (l *layers) Remove(ctx context.Context, key string) error {
	return l.s.snapshots.Remove(ctx, l.namespace, l.snapshotter, key)
}

// CleanUnpacks removes the snapshots of unpacks that a crash interrupted. Before the first request.
func (s *Store) CleanUnpacks(ctx context.Context) error {
	namespaces, err := s.db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	var errs error
	for _, ns := range namespaces {
		for name := range s.snapshots.Drivers {
			var list []metadata.Snapshot
			err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
				list, err = tx.Snapshots(ns, name).List(`labels."` + LabelUnpacking + `"==true`)
				return err
			})
			errs = errors.Join(errs, err)
			for _, v := range list {
				errs = errors.Join(errs, s.snapshots.Remove(ctx, ns, name, v.Key))
			}
		}
	}
	return errs
}
