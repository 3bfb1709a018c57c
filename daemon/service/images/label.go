package images

import (
	"context"
	"fmt"
	"time"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Label sets labels of an image's name; an empty value removes one. Without labels it only looks.
func (s *Store) Label(ctx context.Context, namespace, ref string, labels map[string]string) (*cleatapi.Image, error) {
	img, err := s.Resolve(ctx, namespace, ref)
	if err != nil {
		return nil, err
	}
	if len(labels) > 0 {
		paths := make([]string, 0, len(labels))
		for key := range labels {
			paths = append(paths, "labels."+key)
		}
		if img, err = s.Update(ctx, namespace, metadata.Image{Name: img.Name, Labels: labels}, paths, time.Time{}); err != nil {
			return nil, fmt.Errorf("label image %s: %w", ref, err)
		}
	}
	return s.describe(ctx, namespace, img)
}
