package service

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// ingester is the content of a namespace as package image writes to it. It remembers in made which
// blobs the namespace did not have before.
type ingester struct {
	*Blobs
	made *[]digest.Digest
}

var _ image.Content = ingester{}

// Writer implements image.Ingester.
func (i ingester) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	w, err := i.Blobs.Writer(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return rememberedWriter{w, i.made}, nil
}

// Abort implements image.Ingester. The writer's Close has done it already.
func (i ingester) Abort(ctx context.Context, ref string) error {
	return ignore(i.Blobs.Abort(ctx, ref), errdefs.ErrNotFound)
}

// rememberedWriter tells the ingester of what it committed. What it does not commit it drops:
// nobody takes the ingest of an import up again, so it need not be put on disk.
type rememberedWriter struct {
	*BlobWriter
	made *[]digest.Digest
}

// Commit implements image.BlobWriter.
func (w rememberedWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	err := w.BlobWriter.Commit(ctx, size, expected)
	if err == nil {
		*w.made = append(*w.made, w.Digest())
	}
	return err
}

// Close implements image.BlobWriter.
func (w rememberedWriter) Close() error { return w.Discard() }

// labelUnpacking marks an active snapshot that an unpack is filling; one found at start belongs to
// nobody any more.
const labelUnpacking = "cleat.io/unpacking"

// layers are the snapshots of a namespace as package image makes them.
type layers struct {
	s                      *Service
	namespace, snapshotter string
}

var _ image.Stacker = (*layers)(nil)

// Exists implements image.Snapshots.
func (l *layers) Exists(ctx context.Context, name string) (bool, error) {
	var rec metadata.Snapshot
	err := l.s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
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
	return l.s.Prepare(ctx, l.namespace, l.snapshotter, metadata.Snapshot{
		Key: key, Parent: parent, Kind: snapshot.KindActive, Labels: map[string]string{labelUnpacking: "true"},
	})
}

// Commit implements image.Snapshots.
func (l *layers) Commit(ctx context.Context, name, key string) error {
	return l.s.Commit(ctx, l.namespace, l.snapshotter, name, key, nil)
}

// Layered implements image.Stacker.
func (l *layers) Layered() (userXattr, ok bool) {
	d, ok := l.s.Snapshotters[l.snapshotter].(snapshot.Layered)
	return ok && d.UserXattr(), ok
}

// CommitUpon implements image.Stacker.
func (l *layers) CommitUpon(ctx context.Context, name, key, parent string) error {
	return l.s.commit(ctx, l.namespace, l.snapshotter, name, key, func(snaps metadata.Snapshots, usage snapshot.Usage) error {
		_, err := snaps.CommitUpon(name, key, parent, usage, nil)
		return err
	})
}

// Remove implements image.Snapshots.
func (l *layers) Remove(ctx context.Context, key string) error {
	return l.s.RemoveSnapshot(ctx, l.namespace, l.snapshotter, key)
}

// cleanUnpacks removes the snapshots of unpacks that a crash interrupted. Before the first request.
func (s *Service) cleanUnpacks(ctx context.Context) error {
	namespaces, err := s.namespaces(ctx)
	if err != nil {
		return err
	}
	var errs error
	for _, ns := range namespaces {
		for name := range s.Snapshotters {
			var list []metadata.Snapshot
			err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
				list, err = tx.Snapshots(ns, name).List(`labels."` + labelUnpacking + `"==true`)
				return err
			})
			errs = errors.Join(errs, err)
			for _, v := range list {
				errs = errors.Join(errs, s.RemoveSnapshot(ctx, ns, name, v.Key))
			}
		}
	}
	return errs
}
