package image

import (
	"context"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

// FromStore returns the Content of a store, with all its blobs.
func FromStore(s *content.Store) Content { return storeContent{s} }

type storeContent struct{ store *content.Store }

func (s storeContent) ReaderAt(ctx context.Context, d digest.Digest) (Blob, error) {
	r, err := s.store.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s storeContent) Writer(ctx context.Context, ref string, opts content.WriterOptions) (BlobWriter, error) {
	w, err := s.store.Writer(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (s storeContent) Abort(ctx context.Context, ref string) error { return s.store.Abort(ctx, ref) }
