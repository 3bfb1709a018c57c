package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
)

// pull is one pull.
type pull struct {
	s         *Service
	namespace string
	ref       registry.Reference
	access    registry.Access
	to        Store
	options   image.FetchOptions
	unpacks   []unpackTo
	// pass lets an image that has nothing for a platform to unpack go by.
	pass  bool
	watch Watcher

	target ocispec.Descriptor
	hold   *metadata.Hold
}

// Pull fetches an image from a registry, unpacks its layers as they arrive, and names it, in one
// commit. Called by daemon/api/transfer/service.go; the work is image/registry's, image/fetch.go's and
// image/unpack.go's.
// A lease holds what is fetched until the name does. Of a pull that fails the ingests of layers stay, for the
// next one to resume, unless the disk is full; where it was interrupted, by the client or the network, what
// is whole stays as well, by a lease of an hour, and where the daemon died, by the pull's own of a day.
func (s *Service) Pull(ctx context.Context, namespace string, from Remote, to Store, watch Watcher) (err error) {
	p := &pull{s: s, namespace: namespace, access: from.Access, to: to, watch: watch}
	if p.ref, err = registry.Parse(from.Reference); err != nil {
		return err
	}
	if err := p.to.complete(p.ref.String()); err != nil {
		return err
	}
	if err := p.to.checkTarget(); err != nil {
		return err
	}
	p.options.Parallel = from.Parallel
	switch wanted := to.Choice.Platforms; {
	case !to.Best:
		p.options.Some, p.pass = &to.Choice, len(wanted) == 0
	case len(wanted) > 0:
		p.options.Platform = platforms.Only(wanted[0])
	}
	if p.unpacks, err = s.unpacks(ctx, namespace, to.Unpacks); err != nil {
		return err
	}
	return p.run(ctx)
}

// run does the work under a lease.
func (p *pull) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pull %s: %w", p.ref, err)
		}
	}()
	s := p.s
	repo, err := s.registries.Repository(p.ref, p.access)
	if err != nil {
		return err
	}
	defer repo.Close()
	repo.Limit(image.Downloads(p.options.Parallel))
	p.watch.Event("Resolving from "+registryText(p.ref), "")
	if p.target, err = repo.Resolve(ctx); err != nil {
		return err
	}
	lease, err := s.leasePull(ctx, p.namespace, p.ref.String())
	if err != nil {
		return err
	}
	p.hold = s.db.Hold(p.namespace)
	defer func() { err = errors.Join(err, s.endPull(ctx, p, lease, err)) }()
	ctx = metadata.WithLease(ctx, lease)
	p.watch.Event("Pulling from "+registryText(p.ref), "")
	p.watch.Named("fetching image content", p.ref.String(), p.target)
	if err := p.fetch(ctx, repo); err != nil {
		return err
	}
	var list []layout.Imported
	for _, name := range p.to.named(p.target.Digest) {
		list = append(list, layout.Imported{Name: name, Target: p.target})
	}
	if err := s.saveImages(ctx, p.namespace, list, p.to.Labels, images.Omission{}, p.watch); err != nil {
		return err
	}
	p.watch.Event("Completed pull from "+registryText(p.ref), "")
	return nil
}

// registryText names a registry's image in the text of an event, as clients know it.
func registryText(ref registry.Reference) string { return "OCI Registry (" + ref.String() + ")" }

// fetch fetches the image and unpacks each layer once that and those below it are there.
func (p *pull) fetch(ctx context.Context, repo *registry.Repository) error {
	store := &pulling{
		View: p.s.blobs.In(p.namespace), locks: &p.s.locks, hold: p.hold,
		labels: map[string]string{labelSource + p.ref.Host: p.ref.Repository},
	}
	p.options.Watch, p.options.Found = p.watch.Part, p.watch.Found
	fetching, err := image.Fetch(ctx, store, repo, p.target, p.options)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fetching.Layers(ctx) })
	for _, u := range p.unpacks {
		g.Go(func() error {
			return p.s.unpackFor(ctx, p.hold, p.namespace, p.target, u, !p.pass, fetching, p.watch)
		})
	}
	return g.Wait()
}

// endPull ends what kept the content. It is the image's from now on; or garbage; or, where the pull was
// broken off, the next try's.
func (s *Service) endPull(ctx context.Context, p *pull, lease string, failure error) error {
	err := s.endLease(ctx, p.namespace, lease, p.ref.String(), failure)
	p.hold.Release()
	if err == nil && failure != nil && !interrupted(failure) {
		s.images.CollectFailed(ctx)
	}
	return err
}

// interrupted reports whether an error is not the image's: the same pull may succeed.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errdefs.ErrUnavailable)
}
