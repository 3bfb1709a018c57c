package images

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
)

// List returns the images of a namespace.
func (s *Store) List(ctx context.Context, namespace string, filter []string) ([]*cleatapi.Image, error) {
	var list []metadata.Image
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		if _, err := tx.Namespaces().Get(namespace); err != nil {
			return err
		}
		list, err = tx.Images(namespace).List(filter...)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]*cleatapi.Image, len(list))
	for i, img := range list {
		if out[i], err = s.describe(ctx, namespace, img); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// describe adds to a record what its content says. Content that is missing or damaged leaves the
// fields empty: a list must show such an image, so that it can be removed.
func (s *Store) describe(ctx context.Context, namespace string, img metadata.Image) (*cleatapi.Image, error) {
	out := &cleatapi.Image{
		Name: img.Name, Digest: img.Target.Digest.String(), MediaType: img.Target.MediaType,
		CreatedAt: types.FromTime(img.CreatedAt), Labels: img.Labels,
	}
	blobs := s.blobs.In(namespace)
	err := image.Walk(ctx, blobs, img.Target, func(d ocispec.Descriptor) error {
		if _, err := blobs.Blob(ctx, d.Digest); errors.Is(err, errdefs.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		out.Size_ += d.Size
		if image.IsManifest(d.MediaType) {
			if cfg, err := image.ReadConfig(ctx, blobs, d, platforms.All); err == nil {
				out.Platforms = append(out.Platforms, platforms.Format(cfg.Platform))
			}
		}
		return nil
	})
	if ctxErr := ctx.Err(); ctxErr != nil {
		return nil, ctxErr
	}
	if err != nil {
		s.log.Warn("an image's content cannot be read", "image", img.Name, "namespace", namespace, "error", err)
	}
	return out, nil
}

// Inspect returns an image's documents as they are stored.
func (s *Store) Inspect(ctx context.Context, namespace, ref, platform string) (*cleatapi.InspectImageResponse, error) {
	match, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	img, err := s.Resolve(ctx, namespace, ref)
	if err != nil {
		return nil, err
	}
	blobs := s.blobs.In(namespace)
	manifest, desc, err := image.Manifest(ctx, blobs, img.Target, match)
	if err != nil {
		return nil, err
	}
	resp := &cleatapi.InspectImageResponse{}
	if resp.Image, err = s.describe(ctx, namespace, img); err != nil {
		return nil, err
	}
	if resp.Manifest, err = readBlob(ctx, blobs, desc.Digest); err != nil {
		return nil, err
	}
	resp.Config, err = readBlob(ctx, blobs, manifest.Config.Digest)
	return resp, err
}

// readBlob reads a document that package image has read before, and so bounded.
func readBlob(ctx context.Context, blobs *blobs.View, d digest.Digest) (data []byte, err error) {
	r, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
}
