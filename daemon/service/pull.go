package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
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

// PullImage fetches an image from a registry, unpacks its layers as they arrive, and names it, in one
// commit. Called by daemon/api/transferservice.go, and through Pull by daemon/api/transfer.go; the work is
// image/registry's, image/fetch.go's and image/unpack.go's.
// A lease holds what is fetched until the name does. Of a pull that fails the ingests of layers stay,
// for the next one to go on with; where it was broken off, by the client or the network, what is whole
// stays as well, by a lease of an hour, and where the daemon died, by the pull's own of a day.
func (s *Service) PullImage(ctx context.Context, namespace string, from Remote, to Store, watch Watcher) (err error) {
	p := &pull{s: s, namespace: namespace, access: from.Access, to: to, watch: watch}
	if p.ref, err = registry.Parse(from.Reference); err != nil {
		return err
	}
	if err := p.to.checkTarget(); err != nil {
		return err
	}
	p.options.Some = &to.Choice
	p.pass = len(to.Choice.Platforms) == 0
	if p.unpacks, err = s.unpacks(ctx, namespace, to.Unpacks); err != nil {
		return err
	}
	_, err = p.run(ctx)
	return err
}

// Pull is PullImage as cleat's own call wants it.
func (s *Service) Pull(ctx context.Context, namespace string, req *cleatapi.PullRequest, send func(*cleatapi.TransferProgress) error) (err error) {
	p := &pull{s: s, namespace: namespace, access: registry.Access{Credential: credential(req.Credential)}, pass: req.AllPlatforms}
	if p.ref, err = registry.Parse(req.Reference); err != nil {
		return err
	}
	p.to.Name = p.ref.String()
	match, err := parsePlatform(req.Platform)
	if err != nil {
		return err
	}
	p.options = image.FetchOptions{Platform: match, Parallel: int(min(req.MaxConcurrentDownloads, 1<<10))}
	if req.AllPlatforms {
		p.options.Some = &image.Choice{}
	}
	if !req.NoUnpack {
		if p.unpacks, err = s.unpacks(ctx, namespace, []Unpack{{Snapshotter: req.Snapshotter}}); err != nil {
			return err
		}
		p.unpacks[0].match = match
	}
	return transferring(ctx, send, func(ctx context.Context, progress *progress) (*cleatapi.Image, error) {
		p.watch = progress
		list, err := p.run(ctx)
		if err != nil {
			return nil, err
		}
		return list[0], nil
	})
}

// run does the work under a lease.
func (p *pull) run(ctx context.Context) (_ []*cleatapi.Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pull %s: %w", p.ref, err)
		}
	}()
	s := p.s
	repo, err := s.Registries.Repository(p.ref, p.access)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	repo.Limit(image.Downloads(p.options.Parallel))
	p.watch.Event("Resolving from "+p.ref.String(), "")
	if p.target, err = repo.Resolve(ctx); err != nil {
		return nil, err
	}
	lease, err := s.leasePull(ctx, p.namespace, p.ref.String())
	if err != nil {
		return nil, err
	}
	p.hold = s.DB.Hold(p.namespace)
	defer func() { err = errors.Join(err, s.endPull(ctx, p, lease, err)) }()
	ctx = metadata.WithLease(ctx, lease)
	p.watch.Event("Pulling from "+p.ref.String(), "")
	p.watch.Found(p.target, ocispec.Descriptor{})
	if err := p.fetch(ctx, repo); err != nil {
		return nil, err
	}
	var list []image.Imported
	for _, name := range p.to.named(p.target.Digest) {
		list = append(list, image.Imported{Name: name, Target: p.target})
	}
	out, err := s.recordImages(ctx, p.namespace, list, p.to.Labels)
	if err != nil {
		return nil, err
	}
	for _, img := range out {
		p.watch.Event("saved", img.Name)
	}
	p.watch.Event("Completed pull from "+p.ref.String(), "")
	return out, nil
}

// fetch fetches the image and unpacks each layer once that and those below it are there.
func (p *pull) fetch(ctx context.Context, repo *registry.Repository) error {
	store := &pulling{
		Blobs: p.s.Blobs(p.namespace), hold: p.hold,
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
		g.Go(func() error { return p.unpack(ctx, fetching, u) })
	}
	return g.Wait()
}

func (p *pull) unpack(ctx context.Context, fetching *image.Fetching, u unpackTo) error {
	if p.pass {
		_, _, err := image.Manifest(ctx, p.s.Blobs(p.namespace), p.target, u.match)
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil // an image for other machines
		}
		if err != nil {
			return err
		}
	}
	_, err := p.s.unpack(ctx, p.hold, p.namespace, p.target, u.snapshotter, u.match, &arrivals{fetching, p.watch})
	return err
}

// endPull ends what kept the content. It is the image's from now on; or garbage; or, where the pull was
// broken off, the next try's.
func (s *Service) endPull(ctx context.Context, p *pull, lease string, failure error) error {
	err := s.endLease(ctx, p.namespace, lease, p.ref.String(), failure)
	p.hold.Release()
	if err == nil && failure != nil && !interrupted(failure) {
		s.collectFailed(ctx)
	}
	return err
}

// interrupted tells of an error that says nothing against the image: the same pull may succeed.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errdefs.ErrUnavailable)
}

// credential takes a credential off the wire.
func credential(c *cleatapi.Credential) registry.Credential {
	if c == nil {
		return registry.Credential{}
	}
	return registry.Credential{
		Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}

// arrivals are the layers of an image that is being fetched, and who is told about them; nil fetching for
// one that is here.
type arrivals struct {
	fetching *image.Fetching
	watcher  Watcher
}

func (a *arrivals) wait(ctx context.Context, desc ocispec.Descriptor) error {
	if a.fetching == nil {
		return nil
	}
	return a.fetching.Wait(ctx, desc)
}

func (a *arrivals) stream(ctx context.Context, desc ocispec.Descriptor) (*content.Follower, error) {
	if a.fetching == nil {
		return nil, nil //nolint:nilnil // it is here
	}
	return a.fetching.Stream(ctx, desc)
}

func (a *arrivals) watch(desc ocispec.Descriptor, state image.State) {
	a.watcher.Part(desc, state, desc.Size)
}
