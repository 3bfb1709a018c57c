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

// CheckComplete returns not found, with the missing platforms, unless an image is present for all its platforms.
// Attestation manifests may be missing.
func CheckComplete(ctx context.Context, p Provider, target ocispec.Descriptor) error {
	var missing []string
	if err := missingPlatforms(ctx, p, target, 0, &missing); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing for %s: %w", strings.Join(missing, ", "), reason.ImageIncomplete)
	}
	return nil
}

// missingPlatforms adds the platforms at and below desc that are not present.
func missingPlatforms(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int, missing *[]string) error {
	if IsManifest(desc.MediaType) {
		ok, err := complete(ctx, p, desc, depth)
		if err == nil && !ok {
			*missing = append(*missing, platformOf(desc))
		}
		return err
	}
	if depth > maxNesting {
		return invalidf("indexes are nested more than %d deep", maxNesting)
	}
	index, err := ReadIndex(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		*missing = append(*missing, platformOf(desc))
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !IsManifest(d.MediaType) && !IsIndex(d.MediaType) || d.Annotations[annotationReference] != "" {
			continue
		}
		if err := missingPlatforms(ctx, p, d, depth+1, missing); err != nil {
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
