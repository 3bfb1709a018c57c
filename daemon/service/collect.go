package service

import (
	"context"
	"errors"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
)

// garbage is what images that were removed or replaced may have left behind.
type garbage struct {
	mu   sync.Mutex
	list []dropped
}

type dropped struct {
	namespace string
	target    ocispec.Descriptor
}

func (g *garbage) add(namespace string, target ocispec.Descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list, dropped{namespace, target})
}

func (g *garbage) take() []dropped {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.list
	g.list = nil
	return list
}

// RemoveImage deletes a name; what only it referred to goes with it, now or, while an import runs,
// after that.
func (s *Service) RemoveImage(ctx context.Context, namespace, ref string) error {
	img, err := s.resolve(ctx, namespace, ref)
	if err != nil {
		return err
	}
	if err := s.DeleteImage(ctx, namespace, img.Name); err != nil {
		return err
	}
	s.garbage.add(namespace, img.Target)
	s.collect(context.WithoutCancel(ctx))
	return nil
}

// collect removes what dropped images left, unless an import is under way: that one's blobs have no
// image yet, and it collects at its end.
func (s *Service) collect(ctx context.Context) {
	if !s.importing.TryLock() {
		return
	}
	defer s.importing.Unlock()
	for _, d := range s.garbage.take() {
		if err := s.collectOne(ctx, d); err != nil {
			s.Log.Warn("cannot remove what an image left", "digest", d.target.Digest, "namespace", d.namespace, "error", err)
		}
	}
}

// reach is what images refer to: blobs, and layers by chain ID.
type reach struct {
	blobs  map[digest.Digest]bool
	chains map[string]bool
	order  []string // chains, each after those below it
}

// reachOf walks images. Content that is missing ends a branch.
func (s *Service) reachOf(ctx context.Context, namespace string, targets ...ocispec.Descriptor) (*reach, error) {
	r := &reach{blobs: make(map[digest.Digest]bool), chains: make(map[string]bool)}
	blobs := s.Blobs(namespace)
	for _, t := range targets {
		err := image.Walk(ctx, blobs, t, func(d ocispec.Descriptor) error {
			r.blobs[d.Digest] = true
			if !image.IsManifest(d.MediaType) {
				return nil
			}
			diffIDs, err := image.RootFS(ctx, blobs, d, platforms.All)
			if err != nil {
				return ignore(err, errdefs.ErrNotFound)
			}
			for _, c := range image.ChainIDs(diffIDs) {
				if !r.chains[c.String()] {
					r.chains[c.String()] = true
					r.order = append(r.order, c.String())
				}
			}
			return nil
		})
		if err := ignore(err, errdefs.ErrNotFound); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// collectOne removes what a dropped image referred to and no other image does.
func (s *Service) collectOne(ctx context.Context, d dropped) error {
	var images []metadata.Image
	leased := make(map[string]bool)
	err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		if images, err = tx.Images(d.namespace).List(); err != nil {
			return err
		}
		leases, err := tx.Leases(d.namespace).List()
		for _, l := range leases {
			res, err := tx.Leases(d.namespace).Resources(l.ID)
			if err != nil {
				return err
			}
			for _, r := range res {
				leased[r.Type+"\x00"+r.ID] = true
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	targets := make([]ocispec.Descriptor, len(images))
	for i, img := range images {
		targets[i] = img.Target
	}
	keep, err := s.reachOf(ctx, d.namespace, targets...)
	if err != nil {
		return err
	}
	drop, err := s.reachOf(ctx, d.namespace, d.target)
	if err != nil {
		return err
	}
	var errs error
	for i := len(drop.order) - 1; i >= 0; i-- {
		if chain := drop.order[i]; !keep.chains[chain] {
			errs = errors.Join(errs, s.dropLayer(ctx, d.namespace, chain, leased))
		}
	}
	for b := range drop.blobs {
		if !keep.blobs[b] && !leased["content\x00"+b.String()] {
			errs = errors.Join(errs, s.dropBlob(ctx, d.namespace, b))
		}
	}
	return errs
}

// labelRoot keeps an object for its own sake, as published.
const labelRoot = "containerd.io/gc.root"

// dropLayer removes a layer's snapshot wherever nothing stands upon it.
func (s *Service) dropLayer(ctx context.Context, namespace, chain string, leased map[string]bool) error {
	var errs error
	for name := range s.Snapshotters {
		if leased["snapshots/"+name+"\x00"+chain] {
			continue
		}
		var rec metadata.Snapshot
		err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
			rec, err = tx.Snapshots(namespace, name).Stat(chain)
			return err
		})
		if err == nil && rec.Labels[labelRoot] == "" {
			err = ignore(s.RemoveSnapshot(ctx, namespace, name, chain), errdefs.ErrFailedPrecondition)
		}
		errs = errors.Join(errs, ignore(err, errdefs.ErrNotFound))
	}
	return errs
}

func (s *Service) dropBlob(ctx context.Context, namespace string, d digest.Digest) error {
	blobs := s.Blobs(namespace)
	b, err := blobs.Blob(ctx, d)
	if err == nil && b.Labels[labelRoot] == "" {
		err = blobs.Delete(ctx, d)
	}
	return ignore(err, errdefs.ErrNotFound)
}
