package service

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Push brings an image to a registry: what that lacks, and what another repository there has is taken
// from it. Called by daemon/api/transfer.go; the work is image/push.go's and image/registry's.
func (s *Service) Push(ctx context.Context, namespace string, req *cleatapi.PushRequest, send func(*cleatapi.TransferProgress) error) error {
	ref, err := registry.Parse(req.Reference)
	if err != nil {
		return err
	}
	match, err := parsePlatform(req.Platform)
	if err != nil {
		return err
	}
	img, err := s.resolve(ctx, namespace, first(req.Image, req.Reference))
	if err != nil {
		return err
	}
	if ref.Digest != "" && ref.Digest != img.Target.Digest {
		return fmt.Errorf("push %s: the image is %s: %w", ref, img.Target.Digest, errdefs.ErrInvalidArgument)
	}
	repo, err := s.Registries.Repository(ref, credential(req.Credential))
	if err != nil {
		return err
	}
	defer repo.Close()
	// What it reads is not removed meanwhile.
	hold := s.DB.Hold(namespace)
	defer hold.Release()
	hold.Content(img.Target.Digest.String())
	return transferring(ctx, send, func(ctx context.Context, p *progress) (*cleatapi.Image, error) {
		blobs := s.Blobs(namespace)
		target, err := image.Push(ctx, blobs, repo, img.Target, image.PushOptions{
			Platform: match, Parallel: int(min(req.MaxConcurrentUploads, 1<<10)), Watch: p.set,
			From: func(d digest.Digest) string { return s.sourceOf(ctx, blobs, d, ref) },
		})
		if err != nil {
			return nil, fmt.Errorf("push %s: %w", ref, err)
		}
		return s.describe(ctx, namespace, metadata.Image{Name: ref.String(), Target: target, CreatedAt: img.CreatedAt})
	})
}

// sourceOf returns another repository of the reference's registry that a blob was pulled from, or "".
func (s *Service) sourceOf(ctx context.Context, blobs *Blobs, d digest.Digest, ref registry.Reference) string {
	b, err := blobs.Blob(ctx, d)
	if err != nil {
		return "" // reading it says why
	}
	for _, repository := range strings.Split(b.Labels[labelSource+ref.Host], ",") {
		if repository != "" && repository != ref.Repository {
			return repository
		}
	}
	return ""
}
