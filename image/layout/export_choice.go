package layout

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/reason"
)

// choose returns what is exported of an image, and the content that the archive is to hold.
func (e *export) choose(ctx context.Context, target ocispec.Descriptor) (image.Provider, ocispec.Descriptor, error) {
	content := e.content
	switch {
	case e.opts.Platform != nil:
		_, desc, err := image.Manifest(ctx, content, target, e.opts.Platform)
		if err != nil {
			return nil, target, err
		}
		target = image.PlainTarget(desc)
	case e.opts.Some != nil && image.IsIndex(target.MediaType):
		h, chosen, err := image.Filter(ctx, content, target, *e.opts.Some)
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

func (e *export) checkComplete(ctx context.Context, p image.Provider, target ocispec.Descriptor) error {
	ok, err := image.Usable(ctx, p, target)
	if err == nil && !ok {
		err = fmt.Errorf("a part is missing for every platform: %w", reason.ImageIncomplete)
	}
	return err
}
