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
	if depth > MaxNesting {
		return invalidf("indexes are nested more than %d deep", MaxNesting)
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
		if !IsManifest(d.MediaType) && !IsIndex(d.MediaType) || d.Annotations[AnnotationReference] != "" {
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

// Usable reports whether the image at desc can be used: a manifest whose content is all present, or an index with at
// least one such; archives often hold one platform of many. A document that cannot be trusted is an error.
func Usable(ctx context.Context, p Provider, desc ocispec.Descriptor) (bool, error) {
	return complete(ctx, p, desc, 0)
}

// complete is Usable for a document at a depth of indexes.
func complete(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int) (bool, error) {
	if depth > MaxNesting {
		return false, invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	children, err := Children(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if IsIndex(desc.MediaType) {
		found := false
		for _, c := range children {
			if !IsIndex(c.MediaType) && !IsManifest(c.MediaType) {
				continue
			}
			ok, err := complete(ctx, p, c, depth+1)
			if err != nil {
				return false, err
			}
			found = found || ok
		}
		return found, nil
	}
	for _, c := range children {
		b, err := p.ReaderAt(ctx, c.Digest)
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		size := b.Size()
		_ = b.Close()
		if size != c.Size {
			return false, invalidf("blob %s: %d bytes, in the manifest %s %d", c.Digest, size, desc.Digest, c.Size)
		}
	}
	return true, nil
}
