package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

// Whole returns an error unless an image is here for all its platforms: not found, which names those that
// are not. What tells of its manifests, as attestations do, may lack.
func Whole(ctx context.Context, p Provider, target ocispec.Descriptor) error {
	var lacking []string
	if err := lacks(ctx, p, target, 0, &lacking); err != nil {
		return err
	}
	if len(lacking) > 0 {
		return fmt.Errorf("missing for %s: %w", strings.Join(lacking, ", "), reason.ImageIncomplete)
	}
	return nil
}

// lacks adds the platforms at and below desc that are not here.
func lacks(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int, lacking *[]string) error {
	if IsManifest(desc.MediaType) {
		whole, err := complete(ctx, p, desc, depth)
		if err == nil && !whole {
			*lacking = append(*lacking, platformOf(desc))
		}
		return err
	}
	if depth > maxNesting {
		return invalidf("indexes are nested more than %d deep", maxNesting)
	}
	index, err := ReadIndex(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		*lacking = append(*lacking, platformOf(desc))
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !IsManifest(d.MediaType) && !IsIndex(d.MediaType) || d.Annotations[annotationReference] != "" {
			continue
		}
		if err := lacks(ctx, p, d, depth+1, lacking); err != nil {
			return err
		}
	}
	return nil
}

func platformOf(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return d.Digest.String()
	}
	return fmt.Sprintf("%.40s", platforms.Format(*d.Platform))
}
