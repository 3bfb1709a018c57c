package blobs

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
)

// View is the content store as one namespace sees it: a blob is there once the namespace has
// ingested it, whichever others have it. It is the image.Provider of that namespace.
type View struct {
	s         *Store
	namespace string
}

// Namespace returns the namespace whose view it is.
func (b *View) Namespace() string { return b.namespace }

// ref is the name of an ingest in the shared store.
func (b *View) ref(ref string) string { return b.namespace + "/" + ref }

// Blob returns the record of a blob the namespace sees.
func (b *View) Blob(ctx context.Context, d digest.Digest) (blob metadata.Blob, err error) {
	err = b.s.db.View(ctx, func(tx *metadata.Tx) error {
		blob, err = tx.Content(b.namespace).Get(d)
		return err
	})
	return blob, err
}

// Info returns digest, size and time of a blob the namespace sees.
func (b *View) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	blob, err := b.Blob(ctx, d)
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: blob.Digest, Size: blob.Size, CreatedAt: blob.CreatedAt}, nil
}

// Open opens a blob the namespace sees.
func (b *View) Open(ctx context.Context, d digest.Digest) (*content.Reader, error) {
	if _, err := b.Blob(ctx, d); err != nil {
		return nil, err
	}
	return b.s.content.ReaderAt(ctx, d)
}

// ReaderAt implements image.Provider.
func (b *View) ReaderAt(ctx context.Context, d digest.Digest) (image.Blob, error) {
	return b.Open(ctx, d)
}

// Abort drops an ingest of the namespace, and ends its writer.
func (b *View) Abort(ctx context.Context, ref string) error {
	if err := checkRef(ref); err != nil {
		return err
	}
	return b.s.content.Abort(ctx, b.ref(ref))
}

// Status returns the state of an ingest of the namespace.
func (b *View) Status(ctx context.Context, ref string) (content.Status, error) {
	if err := checkRef(ref); err != nil {
		return content.Status{}, err
	}
	st, err := b.s.content.Status(ctx, b.ref(ref))
	st.Ref = ref
	return st, err
}

// ListStatuses returns the states of the namespace's ingests.
func (b *View) ListStatuses(ctx context.Context) ([]content.Status, error) {
	list, err := b.s.content.ListStatuses(ctx, b.namespace+"/")
	for i := range list {
		list[i].Ref = strings.TrimPrefix(list[i].Ref, b.namespace+"/")
	}
	return list, err
}

func checkRef(ref string) error {
	if ref == "" {
		return fmt.Errorf("content: the ref of an ingest is required: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// Delete deletes a blob from the namespace, and from the store if no other namespace has it.
func (b *View) Delete(ctx context.Context, d digest.Digest) error {
	err := b.s.db.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Content(b.namespace).Delete(d); err != nil {
			return err
		}
		return announce.ContentDeleted(tx, b.namespace, d)
	})
	if err != nil {
		return err
	}
	// The record is gone: the blob is deleted even if ctx ends.
	_, err = b.s.DeleteUnrecorded(context.WithoutCancel(ctx), d)
	return err
}
