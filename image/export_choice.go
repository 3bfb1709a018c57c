package image

import (
	"context"
	"fmt"

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
		h, chosen, err := Filter(ctx, content, target, *e.opts.Some)
		if err != nil {
			return nil, target, err
		}
		for _, d := range chosen {
			if err := e.checkComplete(ctx, h, d); err != nil {
				return nil, target, err
			}
		}
		return h, target, nil
	}
	return content, target, e.checkComplete(ctx, content, target)
}

func (e *export) checkComplete(ctx context.Context, p Provider, target ocispec.Descriptor) error {
	ok, err := Usable(ctx, p, target)
	if err == nil && !ok {
		err = fmt.Errorf("a part is missing for every platform: %w", reason.ImageIncomplete)
	}
	return err
}
