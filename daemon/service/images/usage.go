package images

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// footprint is what an image is made of: the blobs that are here, and the names of its snapshots, with their
// sizes. Several names of one digest are one image.
type footprint struct {
	blobs     map[digest.Digest]int64
	snapshots map[string]map[string]int64 // by snapshotter
}

// Usage returns what images, all of the namespace if none is named, take on disk, and how much of it
// others share.
func (s *Store) Usage(ctx context.Context, namespace string, refs []string) ([]*cleatapi.ImageUsage, error) {
	var all []metadata.Image
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		if _, err := tx.Namespaces().Get(namespace); err != nil {
			return err
		}
		all, err = tx.Images(namespace).List()
		return err
	})
	if err != nil {
		return nil, err
	}
	asked := all
	if len(refs) > 0 {
		asked = nil
	}
	for _, ref := range refs {
		img, err := s.Resolve(ctx, namespace, ref)
		if err != nil {
			return nil, err
		}
		asked = append(asked, img)
	}
	prints, err := s.footprints(ctx, namespace, append(slices.Clone(all), asked...))
	if err != nil {
		return nil, err
	}
	blobUsers, snapshotUsers := usersOf(prints)
	out := make([]*cleatapi.ImageUsage, len(asked))
	for i, img := range asked {
		f := prints[img.Target.Digest]
		u := &cleatapi.ImageUsage{Name: img.Name, Digest: img.Target.Digest.String()}
		for d, size := range f.blobs {
			u.Compressed += size
			if blobUsers[d] == 1 {
				u.CompressedUnique += size
			}
		}
		u.CompressedShared = u.Compressed - u.CompressedUnique
		for _, name := range slices.Sorted(maps.Keys(f.snapshots)) {
			of := &cleatapi.SnapshotterUsage{Snapshotter: name}
			for key, size := range f.snapshots[name] {
				of.Size_ += size
				if snapshotUsers[[2]string{name, key}] == 1 {
					of.Unique += size
				}
			}
			of.Shared = of.Size_ - of.Unique
			u.Unpacked = append(u.Unpacked, of)
		}
		out[i] = u
	}
	return out, nil
}

// usersOf counts how many images have each blob and each snapshot.
func usersOf(prints map[digest.Digest]*footprint) (blobs map[digest.Digest]int, snapshots map[[2]string]int) {
	blobs, snapshots = make(map[digest.Digest]int), make(map[[2]string]int)
	for _, f := range prints {
		for d := range f.blobs {
			blobs[d]++
		}
		for name, list := range f.snapshots {
			for key := range list {
				snapshots[[2]string{name, key}]++
			}
		}
	}
	return blobs, snapshots
}

// footprints measures images, each digest once. One whose content is damaged has what could be read of it.
func (s *Store) footprints(ctx context.Context, namespace string, list []metadata.Image) (map[digest.Digest]*footprint, error) {
	out := make(map[digest.Digest]*footprint)
	for _, img := range list {
		if out[img.Target.Digest] != nil {
			continue
		}
		f := &footprint{blobs: make(map[digest.Digest]int64), snapshots: make(map[string]map[string]int64)}
		out[img.Target.Digest] = f
		chains, err := s.measureBlobs(ctx, namespace, img.Target, f)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			s.log.Warn("an image's content cannot be read", "image", img.Name, "namespace", namespace, "error", err)
		}
		if err := s.measureSnapshots(ctx, namespace, chains, f); err != nil {
			return nil, fmt.Errorf("usage of image %s: %w", img.Name, err)
		}
	}
	return out, nil
}

// measureBlobs adds an image's blobs and returns the names that its snapshots would have.
func (s *Store) measureBlobs(ctx context.Context, namespace string, target ocispec.Descriptor, f *footprint) ([]digest.Digest, error) {
	var chains []digest.Digest
	blobs := s.blobs.In(namespace)
	err := image.Walk(ctx, blobs, target, func(d ocispec.Descriptor) error {
		blob, err := blobs.Blob(ctx, d.Digest)
		if err != nil {
			return err
		}
		f.blobs[d.Digest] = blob.Size
		if !image.IsManifest(d.MediaType) {
			return nil
		}
		if ids, err := image.RootFS(ctx, blobs, d, platforms.All); err == nil { // else it is not an image, or not local
			chains = append(chains, image.ChainIDs(ids)...)
		}
		return nil
	})
	return chains, err
}

// measureSnapshots adds those of the snapshots that there are.
func (s *Store) measureSnapshots(ctx context.Context, namespace string, chains []digest.Digest, f *footprint) error {
	return s.db.View(ctx, func(tx *metadata.Tx) error {
		for _, name := range tx.Snapshotters(namespace) {
			snaps := tx.Snapshots(namespace, name)
			for _, c := range chains {
				rec, err := snaps.Stat(c.String())
				if err != nil { // not unpacked there
					continue
				}
				if f.snapshots[name] == nil {
					f.snapshots[name] = make(map[string]int64)
				}
				f.snapshots[name][c.String()] = rec.Size
			}
		}
		return nil
	})
}
