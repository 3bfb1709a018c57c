package blobs

import (
	"context"
	"errors"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// labelShareable on a namespace lets every other one use its blobs, as published.
const labelShareable = "containerd.io/namespace.shareable"

// Writer opens an ingest. A blob that the namespace sees already is errdefs.ErrAlreadyExists, and
// so is one that a namespace with the label containerd.io/namespace.shareable=true has: it is
// recorded for this one then. A blob that only others see has to be written, which proves that this
// namespace has it. Either way the context's lease (metadata.WithLease), where there is one, holds the
// blob, and the ingest until it is one.
func (b *View) Writer(ctx context.Context, ref string, opts content.WriterOptions) (*BlobWriter, error) {
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	if opts.Expected != "" {
		if err := b.adopt(ctx, opts.Expected); !errors.Is(err, errdefs.ErrNotFound) {
			if err == nil {
				err = fmt.Errorf("content %s: %w", opts.Expected, errdefs.ErrAlreadyExists)
			}
			return nil, err
		}
	}
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	if err := b.s.db.Lease(ctx, b.namespace, metadata.Resource{Type: metadata.ResourceIngests, ID: ref}); err != nil {
		return nil, err
	}
	opts.Prove = true
	w, err := b.s.content.Writer(ctx, b.ref(ref), opts)
	if err != nil {
		return nil, err
	}
	return &BlobWriter{Writer: w, blobs: b}, nil
}

// adopt makes a blob visible to the namespace without its bytes, if that may be, and puts it under
// the lease. Not found if they have to be written.
func (b *View) adopt(ctx context.Context, d digest.Digest) error {
	defer b.s.KeepUnrecorded()()
	// A blob that is missing or damaged can be written again although it has a record.
	info, err := b.s.content.Info(ctx, d)
	if err != nil {
		return err
	}
	var created bool
	look := func(tx *metadata.Tx) error {
		blob, err := tx.Content(b.namespace).Get(d)
		created = errors.Is(err, errdefs.ErrNotFound)
		if created {
			blob, err = sharedBlob(tx, d)
		}
		if err == nil && blob.Size != info.Size {
			err = fmt.Errorf("content %s is damaged: %w", d, errdefs.ErrNotFound)
		}
		return err
	}
	if err := b.s.db.View(ctx, look); err != nil || !created && metadata.LeaseOf(ctx) == "" {
		return err
	}
	return b.s.db.Update(ctx, func(tx *metadata.Tx) error {
		if err := look(tx); err != nil {
			return err
		}
		if created {
			if _, err := createBlob(tx, b.namespace, metadata.Blob{Digest: d, Size: info.Size}); err != nil {
				return err
			}
		}
		return tx.HoldUnderLease(b.namespace, contentResource(d))
	})
}

// createBlob records a blob and announces it.
func createBlob(tx *metadata.Tx, namespace string, blob metadata.Blob) (metadata.Blob, error) {
	made, err := tx.Content(namespace).Create(blob)
	if err != nil {
		return made, err
	}
	return made, announce.Add(tx, namespace, "/content/create", &apievents.ContentCreate{Digest: made.Digest.String(), Size: made.Size})
}

// sharedBlob returns the record of a blob that some namespace shares, or not found.
func sharedBlob(tx *metadata.Tx, d digest.Digest) (metadata.Blob, error) {
	users, err := tx.BlobUsers(d)
	if err != nil {
		return metadata.Blob{}, err
	}
	for _, name := range users {
		ns, err := tx.Namespaces().Get(name)
		if err != nil {
			return metadata.Blob{}, err
		}
		if ns.Labels[labelShareable] == "true" {
			return tx.Content(name).Get(d)
		}
	}
	return metadata.Blob{}, fmt.Errorf("content %s: %w", d, reason.ContentNotFound)
}

func contentResource(d digest.Digest) metadata.Resource {
	return metadata.Resource{Type: metadata.ResourceContent, ID: d.String()}
}

// check reports early that the lease does not exist, or that the name of the namespace is not valid. A namespace that is not there
// is made by the first record.
func (b *View) check(ctx context.Context) error {
	err := b.s.db.View(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Namespaces().Get(b.namespace)
		if err = undo.Ignore(err, errdefs.ErrNotFound); err != nil {
			return err
		}
		if lease := metadata.LeaseOf(ctx); lease != "" {
			_, err = tx.Leases(b.namespace).Get(lease)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write content: %w", err)
	}
	return nil
}

// BlobWriter writes an ingest of a namespace.
type BlobWriter struct {
	*content.Writer
	blobs *View
}

var _ image.BlobWriter = (*BlobWriter)(nil)

// Status says how far the ingest has come.
func (w *BlobWriter) Status() content.Status {
	st := w.Writer.Status()
	st.Ref = st.Ref[len(w.blobs.namespace)+1:]
	return st
}

// Commit verifies the ingest and makes it visible to the namespace. A blob that is in the store
// already, through another namespace, is not an error: it was proved by writing it.
func (w *BlobWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	_, err := w.CommitLabelled(ctx, size, expected, nil)
	return err
}

// CommitLabelled is Commit with labels for the namespace's record, which it returns. Where the
// namespace has one already, that stays as it is, and the answer is already exists.
func (w *BlobWriter) CommitLabelled(ctx context.Context, size int64, expected digest.Digest, labels map[string]string) (metadata.Blob, error) {
	b := w.blobs
	// What would refuse the record is found before there is a blob.
	if err := errors.Join(metadata.ValidateLabels(labels), b.check(ctx)); err != nil {
		return metadata.Blob{}, fmt.Errorf("commit content: %w", err)
	}
	st := w.Status()
	if st.Offset >= longSync {
		if err := w.Sync(ctx); err != nil {
			return metadata.Blob{}, err
		}
	}
	blob, err := w.record(ctx, size, expected, metadata.Blob{Size: st.Offset, Labels: labels})
	if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) && blob.Digest != "" {
		err = errors.Join(err, b.dropUnrecorded(ctx, blob.Digest))
	}
	return blob, err
}

// CommitWhole is CommitLabelled, except that a commit that has begun is finished even if ctx ends: half of one is
// a blob in the store that no record names, and that only a later collection removes.
func (w *BlobWriter) CommitWhole(ctx context.Context, size int64, expected digest.Digest, labels map[string]string) (metadata.Blob, error) {
	if err := ctx.Err(); err != nil {
		return metadata.Blob{}, err
	}
	return w.CommitLabelled(context.WithoutCancel(ctx), size, expected, labels)
}

// longSync is how many bytes are synced before the lock that deletions wait for.
const longSync = 4 << 20

// record commits the ingest and its record. The digest it returns says that there is a blob.
func (w *BlobWriter) record(ctx context.Context, size int64, expected digest.Digest, blob metadata.Blob) (metadata.Blob, error) {
	b := w.blobs
	// A blob without a record would look unused to a deletion of its last record.
	defer b.s.KeepUnrecorded()()
	if err := undo.Ignore(w.Writer.Commit(ctx, size, expected), errdefs.ErrAlreadyExists); err != nil {
		return metadata.Blob{}, err
	}
	blob.Digest = w.Digest()
	made := blob
	var existed bool
	// The blob is there: a client that leaves now must not leave it without a record.
	err := b.s.db.Update(context.WithoutCancel(ctx), func(tx *metadata.Tx) (err error) {
		made, err = createBlob(tx, b.namespace, blob)
		if existed = errors.Is(err, errdefs.ErrAlreadyExists); existed {
			made, err = tx.Content(b.namespace).Get(blob.Digest)
		}
		if err != nil {
			return err
		}
		if err := tx.HoldUnderLease(b.namespace, contentResource(blob.Digest)); err != nil {
			return err
		}
		return tx.ReleaseFromLease(b.namespace, metadata.Resource{Type: metadata.ResourceIngests, ID: w.Status().Ref})
	})
	switch {
	case err != nil:
		return blob, err
	case existed:
		return made, fmt.Errorf("content %s: %w", blob.Digest, errdefs.ErrAlreadyExists)
	}
	return made, nil
}

// dropUnrecorded removes a blob whose record could not be made, unless another namespace has one.
func (b *View) dropUnrecorded(ctx context.Context, d digest.Digest) error {
	ctx, cancel := undo.Context(ctx)
	defer cancel()
	_, err := b.s.DeleteUnrecorded(ctx, d)
	return err
}
