package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// pull is one call of Pull.
type pull struct {
	s                      *Service
	namespace, snapshotter string
	ref                    registry.Reference
	match                  platforms.MatchComparer
	req                    *cleatapi.PullRequest
	progress               *progress

	target ocispec.Descriptor
	// hold is what keeps what was fetched for the next try, where this one is broken off.
	hold *metadata.Hold
}

// Pull fetches an image from a registry, unpacks its layers as they arrive, and names it, in one commit.
// Called by daemon/api/transfer.go; the work is image/registry's, image/fetch.go's and image/unpack.go's.
// A lease holds what is fetched until the name does. Of a pull that fails the ingests of layers stay,
// for the next one to go on with; where it was broken off, by the client or the network, what is whole
// stays as well for an hour, and where the daemon died, as long as the lease.
func (s *Service) Pull(ctx context.Context, namespace string, req *cleatapi.PullRequest, send func(*cleatapi.TransferProgress) error) error {
	p := &pull{s: s, namespace: namespace, req: req}
	if err := p.check(ctx); err != nil {
		return err
	}
	return transferring(ctx, send, func(ctx context.Context, progress *progress) (*cleatapi.Image, error) {
		p.progress = progress
		img, err := p.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("pull %s: %w", p.ref, err)
		}
		return img, nil
	})
}

// check finds out what is wrong with the request before anything is asked of a registry.
func (p *pull) check(ctx context.Context) (err error) {
	if p.ref, err = registry.Parse(p.req.Reference); err != nil {
		return err
	}
	if p.match, err = parsePlatform(p.req.Platform); err != nil {
		return err
	}
	err = p.s.DB.View(ctx, func(tx *metadata.Tx) error {
		def, _, err := p.s.defaults(tx, p.namespace)
		p.snapshotter = first(p.req.Snapshotter, def)
		return err
	})
	if err == nil && !p.req.NoUnpack {
		_, err = p.s.driver(p.snapshotter)
	}
	return err
}

// run does the work under a lease.
func (p *pull) run(ctx context.Context) (_ *cleatapi.Image, err error) {
	s := p.s
	repo, err := s.Registries.Repository(p.ref, credential(p.req.Credential))
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	if p.target, err = repo.Resolve(ctx); err != nil {
		return nil, err
	}
	lease, err := s.leasePull(ctx, p.namespace, p.ref.String())
	if err != nil {
		return nil, err
	}
	if p.hold = s.kept.take(p.key()); p.hold == nil {
		p.hold = s.DB.Hold(p.namespace)
	}
	defer func() { err = errors.Join(err, s.endPull(ctx, p, lease, err)) }()
	ctx = metadata.WithLease(ctx, lease)
	if err := p.fetch(ctx, repo); err != nil {
		return nil, err
	}
	out, err := s.recordImages(ctx, p.namespace, []image.Imported{{Name: p.ref.String(), Target: p.target}})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// fetch fetches the image and unpacks each layer once that and those below it are there.
func (p *pull) fetch(ctx context.Context, repo *registry.Repository) error {
	store := &pulling{
		Blobs: p.s.Blobs(p.namespace), hold: p.hold,
		labels: map[string]string{labelSource + p.ref.Host: p.ref.Repository},
	}
	fetching, err := image.Fetch(ctx, store, repo, p.target, image.FetchOptions{
		Platform: p.match, All: p.req.AllPlatforms, Parallel: int(min(p.req.MaxConcurrentDownloads, 1<<10)),
		Watch: p.progress.set,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fetching.Layers(ctx) })
	if !p.req.NoUnpack {
		g.Go(func() error { return p.unpack(ctx, fetching) })
	}
	return g.Wait()
}

func (p *pull) unpack(ctx context.Context, fetching *image.Fetching) error {
	if p.req.AllPlatforms {
		_, _, err := image.Manifest(ctx, p.s.Blobs(p.namespace), p.target, p.match)
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil // an image for other machines
		}
		if err != nil {
			return err
		}
	}
	_, err := p.s.unpack(ctx, p.hold, p.namespace, p.target, p.snapshotter, p.match, &arrivals{fetching, p.progress})
	return err
}

// key names what is pulled.
func (p *pull) key() string { return p.namespace + "/" + p.ref.String() }

// endPull takes the lease away. What was fetched is the image's from now on; or garbage; or, where the
// pull was broken off, the next try's.
func (s *Service) endPull(ctx context.Context, p *pull, lease string, failure error) error {
	if failure != nil && interrupted(failure) {
		s.kept.put(p.key(), p.hold)
	} else {
		p.hold.Release()
	}
	if err := s.endLease(ctx, p.namespace, lease, p.ref.String(), failure == nil); err != nil {
		return err
	}
	if failure != nil && !interrupted(failure) {
		s.collectFailed(ctx)
	}
	return nil
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

// arrivals are the layers of an image that is being fetched, and who is told about them.
type arrivals struct {
	fetching *image.Fetching
	progress *progress
}

func (a *arrivals) wait(ctx context.Context, desc ocispec.Descriptor) error {
	return a.fetching.Wait(ctx, desc)
}

func (a *arrivals) watch(desc ocispec.Descriptor, state image.State) {
	a.progress.set(desc, state, desc.Size)
}
