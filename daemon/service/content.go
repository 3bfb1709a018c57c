package service

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
)

// Blobs is the content store as one namespace sees it: a blob is there once the namespace has
// ingested it, whoever else has it. It is the image.Provider of that namespace.
type Blobs struct {
	s         *Service
	namespace string
}

// Blobs returns the view of a namespace.
func (s *Service) Blobs(namespace string) *Blobs { return &Blobs{s: s, namespace: namespace} }

// ref is the name of an ingest in the shared store.
func (b *Blobs) ref(ref string) string { return b.namespace + "/" + ref }

// Blob returns the record of a blob the namespace sees.
func (b *Blobs) Blob(ctx context.Context, d digest.Digest) (blob metadata.Blob, err error) {
	err = b.s.DB.View(ctx, func(tx *metadata.Tx) error {
		blob, err = tx.Content(b.namespace).Get(d)
		return err
	})
	return blob, err
}

// Info returns digest, size and time of a blob the namespace sees.
func (b *Blobs) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	blob, err := b.Blob(ctx, d)
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: blob.Digest, Size: blob.Size, CreatedAt: blob.CreatedAt}, nil
}

// ReaderAt opens a blob the namespace sees.
func (b *Blobs) ReaderAt(ctx context.Context, d digest.Digest) (image.Blob, error) {
	if _, err := b.Blob(ctx, d); err != nil {
		return nil, err
	}
	return b.s.Content.ReaderAt(ctx, d)
}

// Writer opens an ingest. A blob that the namespace sees already is errdefs.ErrAlreadyExists; one
// that only others see has to be written all the same, which proves that this namespace has it.
func (b *Blobs) Writer(ctx context.Context, ref string, opts content.WriterOptions) (*BlobWriter, error) {
	if ref == "" {
		return nil, fmt.Errorf("write content: the ref is empty: %w", errdefs.ErrInvalidArgument)
	}
	if opts.Expected != "" {
		if err := b.absent(ctx, opts.Expected); err != nil {
			return nil, err
		}
	}
	if err := b.s.DB.Lease(ctx, b.namespace, metadata.Resource{Type: metadata.ResourceIngests, ID: ref}); err != nil {
		return nil, err
	}
	w, err := b.s.Content.Writer(ctx, b.ref(ref), content.WriterOptions{Total: opts.Total})
	if err != nil {
		return nil, err
	}
	return &BlobWriter{Writer: w, blobs: b, expected: opts.Expected}, nil
}

// absent answers that a blob exists which the namespace sees, and puts that into the caller's lease.
func (b *Blobs) absent(ctx context.Context, d digest.Digest) error {
	_, err := b.Blob(ctx, d)
	if err == nil {
		// Once it is leased it is looked for again: it may have been collected just before.
		if err := b.lease(ctx, d); err != nil {
			return err
		}
		_, err = b.Blob(ctx, d)
	}
	if err == nil {
		return fmt.Errorf("content %s: %w", d, errdefs.ErrAlreadyExists)
	}
	return ignore(err, errdefs.ErrNotFound)
}

func (b *Blobs) lease(ctx context.Context, d digest.Digest) error {
	return b.s.DB.Lease(ctx, b.namespace, metadata.Resource{Type: metadata.ResourceContent, ID: d.String()})
}

// Abort drops an ingest of the namespace.
func (b *Blobs) Abort(ctx context.Context, ref string) error {
	return b.s.Content.Abort(ctx, b.ref(ref))
}

// Status tells of an ingest of the namespace.
func (b *Blobs) Status(ctx context.Context, ref string) (content.Status, error) {
	st, err := b.s.Content.Status(ctx, b.ref(ref))
	st.Ref = ref
	return st, err
}

// ListStatuses tells of the namespace's ingests.
func (b *Blobs) ListStatuses(ctx context.Context) ([]content.Status, error) {
	list, err := b.s.Content.ListStatuses(ctx, b.namespace+"/")
	for i := range list {
		list[i].Ref = strings.TrimPrefix(list[i].Ref, b.namespace+"/")
	}
	return list, err
}

// Delete takes a blob from the namespace, and from the store when nobody else sees it.
func (b *Blobs) Delete(ctx context.Context, d digest.Digest) error {
	b.s.sweeping.Lock()
	defer b.s.sweeping.Unlock()
	var users []string
	err := b.s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		if err := tx.Content(b.namespace).Delete(d); err != nil {
			return err
		}
		users, err = tx.BlobUsers(d)
		return err
	})
	if err != nil || len(users) > 0 {
		return err
	}
	return ignore(b.s.Content.Delete(ctx, d), errdefs.ErrNotFound)
}

// BlobWriter writes an ingest of a namespace.
type BlobWriter struct {
	*content.Writer
	blobs    *Blobs
	expected digest.Digest
}

// Commit verifies the ingest and makes it visible to the namespace. A blob that is in the store
// already, through another namespace, is no error: it was proved by writing it.
func (w *BlobWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	_, err := w.CommitLabelled(ctx, size, expected, nil)
	return err
}

// CommitLabelled is Commit with labels for the namespace's record, which it returns.
func (w *BlobWriter) CommitLabelled(ctx context.Context, size int64, expected digest.Digest, labels map[string]string) (metadata.Blob, error) {
	if expected == "" {
		expected = w.expected
	}
	if w.expected != "" && expected != w.expected {
		return metadata.Blob{}, fmt.Errorf("commit %s: the ingest was opened for %s: %w", expected, w.expected, errdefs.ErrFailedPrecondition)
	}
	s := w.blobs.s
	// A blob without a record would look unused to whoever deletes the last record of it.
	s.sweeping.RLock()
	defer s.sweeping.RUnlock()
	offset := w.Status().Offset
	if err := ignore(w.Writer.Commit(ctx, size, expected), errdefs.ErrAlreadyExists); err != nil {
		return metadata.Blob{}, err
	}
	var blob metadata.Blob
	err := s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		blob, err = tx.Content(w.blobs.namespace).Create(metadata.Blob{Digest: w.Digest(), Size: offset, Labels: labels})
		if err != nil {
			return err
		}
		ref := strings.TrimPrefix(w.Status().Ref, w.blobs.ref(""))
		return tx.LetGo(w.blobs.namespace, metadata.Resource{Type: metadata.ResourceIngests, ID: ref})
	})
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		err = errors.Join(err, w.blobs.lease(ctx, w.Digest()))
	}
	return blob, err
}
