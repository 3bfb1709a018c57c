package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image/layout"
)

// Tag gives an image further names. A name that exists is moved.
func (s *Service) Tag(ctx context.Context, namespace string, from, to Store, watch Watcher) error {
	if err := to.complete(""); err != nil {
		return err
	}
	if err := errors.Join(from.single(), to.checkTarget()); err != nil {
		return err
	}
	img, err := s.images.Resolve(ctx, namespace, from.Name)
	if err != nil {
		return err
	}
	var list []layout.Imported
	for _, name := range to.named(img.Target.Digest) {
		list = append(list, layout.Imported{Name: name, Target: img.Target})
	}
	if err := s.saveImages(ctx, namespace, list, to.Labels, images.Omission{}, watch); err != nil {
		return fmt.Errorf("tag image %s: %w", img.Name, err)
	}
	return nil
}
