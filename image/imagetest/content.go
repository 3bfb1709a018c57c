package imagetest

import (
	"context"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
)

// FromStore returns the Content of a store, with all its blobs.
func FromStore(s *content.Store) image.Content { return storeContent{s} }

type storeContent struct{ store *content.Store }

// ReaderAt implements image.Provider.
func (s storeContent) ReaderAt(ctx context.Context, d digest.Digest) (image.Blob, error) {
	r, err := s.store.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Writer implements image.Ingester.
func (s storeContent) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	w, err := s.store.Writer(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Abort implements image.Ingester.
func (s storeContent) Abort(ctx context.Context, ref string) error { return s.store.Abort(ctx, ref) }
