package image

import (
	"context"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// IDs returns the digests of the indexes, manifests and configurations of an image that are present.
func IDs(ctx context.Context, p Provider, target ocispec.Descriptor) ([]digest.Digest, error) {
	var out []digest.Digest
	err := appendIDs(ctx, p, target, 0, &out)
	return out, err
}

func appendIDs(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int, out *[]digest.Digest) error {
	if depth > MaxNesting {
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	if IsManifest(desc.MediaType) {
		m, err := ReadManifest(ctx, p, desc)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			*out = append(*out, desc.Digest, m.Config.Digest)
		}
		return err
	}
	children, err := Children(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	*out = append(*out, desc.Digest)
	for _, c := range children {
		if err := appendIDs(ctx, p, c, depth+1, out); err != nil {
			return err
		}
	}
	return nil
}
