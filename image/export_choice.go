package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

// choose returns what is exported of an image, and the content that the archive is to hold.
func (e *export) choose(ctx context.Context, target ocispec.Descriptor) (Provider, ocispec.Descriptor, error) {
	content := e.content
	switch {
	case e.opts.Platform != nil:
		_, desc, err := Manifest(ctx, content, target, e.opts.Platform)
		if err != nil {
			return nil, target, err
		}
		target = plainTarget(desc)
	case e.opts.Some != nil && IsIndex(target.MediaType):
		chosen, _, err := Chosen(ctx, content, target, *e.opts.Some)
		if err != nil {
			return nil, target, err
		}
		h := filtered{Provider: content, hidden: make(map[digest.Digest]bool)}
		if err := namedBy(ctx, content, target, 0, h.hidden); err != nil {
			return nil, target, err
		}
		for _, d := range chosen {
			delete(h.hidden, d.Digest)
			if err := e.checkComplete(ctx, h, d); err != nil {
				return nil, target, err
			}
		}
		return h, target, nil
	}
	return content, target, e.checkComplete(ctx, content, target)
}

func (e *export) checkComplete(ctx context.Context, p Provider, target ocispec.Descriptor) error {
	ok, err := complete(ctx, p, target, 0)
	if err == nil && !ok {
		err = fmt.Errorf("a part is missing for every platform: %w", reason.ImageIncomplete)
	}
	return err
}

// filtered is a Provider without some blobs.
type filtered struct {
	Provider
	hidden map[digest.Digest]bool
}

var _ Provider = filtered{}

// ReaderAt implements Provider.
func (h filtered) ReaderAt(ctx context.Context, d digest.Digest) (Blob, error) {
	if h.hidden[d] {
		return nil, fmt.Errorf("blob %s is not selected: %w", d, errdefs.ErrNotFound)
	}
	return h.Provider.ReaderAt(ctx, d)
}
