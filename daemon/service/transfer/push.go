package transfer

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
)

// push is one push.
type push struct {
	s         *Service
	namespace string
	ref       registry.Reference
	access    registry.Access
	img       metadata.Image
	options   image.PushOptions
}

// Push pushes an image to a registry: what that lacks, and what another repository there has is taken
// from it. Called by daemon/api/transfer/service.go; the work is image/push.go's and image/registry's.
func (s *Service) Push(ctx context.Context, namespace string, from Store, to Remote, watch Watcher) (err error) {
	p := &push{s: s, namespace: namespace, access: to.Access}
	if p.ref, err = registry.Parse(to.Reference); err != nil {
		return err
	}
	if err := from.single(); err != nil {
		return err
	}
	if p.img, err = s.pushed(ctx, namespace, from.Name, to.Reference); err != nil {
		return err
	}
	if p.options.Platform, err = s.pushPlatform(ctx, namespace, p.img, from.Choice); err != nil {
		return err
	}
	p.options.Parallel = to.Parallel
	if from.Referrers {
		all, err := s.images.Records(ctx, namespace)
		if err != nil {
			return err
		}
		for _, img := range all {
			p.options.Referrers = append(p.options.Referrers, img.Target)
		}
	}
	if p.ref.Digest != "" && p.ref.Digest != p.img.Target.Digest {
		return fmt.Errorf("push %s: the image is %s: %w", p.ref, p.img.Target.Digest, errdefs.ErrInvalidArgument)
	}
	return p.run(ctx, watch)
}

// pushed returns the image to push: of the name or, if there is none, of the reference. That is a name as well,
// and not an id, under which nothing can be pushed.
func (s *Service) pushed(ctx context.Context, namespace, name, reference string) (metadata.Image, error) {
	if name == "" && images.IsID(reference) {
		found, _, err := s.images.ResolveName(ctx, namespace, reference)
		if err == nil && len(found) == 0 {
			err = images.NotFound(reference)
		}
		if err != nil {
			return metadata.Image{}, err
		}
		return found[0], nil
	}
	return s.images.Resolve(ctx, namespace, cmp.Or(name, reference))
}

// pushPlatform returns the platform to push a manifest of, or nil for the whole image: a registry takes an
// index with everything it names only.
func (s *Service) pushPlatform(ctx context.Context, namespace string, img metadata.Image, c image.Choice) (platforms.MatchComparer, error) {
	if len(c.Platforms) == 0 {
		return nil, nil // nil is all, as package image takes it
	}
	if len(c.Platforms) == 1 {
		return platforms.Only(c.Platforms[0]), nil
	}
	hold := s.db.Hold(namespace)
	defer hold.Release()
	hold.Content(img.Target.Digest.String())
	_, all, err := image.Chosen(ctx, s.blobs.In(namespace), img.Target, image.Choice{Platforms: c.Platforms})
	if err == nil && !all {
		err = fmt.Errorf("push image %s: it has more platforms than those given, and registries take an index as a whole: push one platform, or all: %w",
			img.Name, errdefs.ErrInvalidArgument)
	}
	return nil, err
}

func (p *push) run(ctx context.Context, watch Watcher) error {
	repo, err := p.s.registries.Repository(p.ref, p.access)
	if err != nil {
		return err
	}
	defer repo.Close()
	// What it reads is not removed concurrently.
	hold := p.s.db.Hold(p.namespace)
	defer hold.Release()
	hold.Content(p.img.Target.Digest.String())
	for _, d := range p.options.Referrers {
		hold.Content(d.Digest.String())
	}
	watch.Event("Pushing to "+registryText(p.ref), "")
	watch.Named("pushing content", p.img.Name, p.img.Target)
	blobs := p.s.blobs.In(p.namespace)
	p.options.Watch, p.options.Found = watch.Part, watch.Found
	p.options.From = func(d digest.Digest) string { return p.s.sourceOf(ctx, blobs, d, p.ref) }
	target, err := image.Push(ctx, blobs, repo, p.img.Target, p.options)
	if err != nil {
		return fmt.Errorf("push %s: %w", p.ref, err)
	}
	watch.Named("pushed content", p.img.Name, p.img.Target)
	watch.Pushed(p.ref.String(), target)
	return nil
}

// sourceOf returns another repository of the reference's registry that a blob was pulled from, or "".
func (s *Service) sourceOf(ctx context.Context, blobs *blobs.View, d digest.Digest, ref registry.Reference) string {
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
