package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
)

// checkContent compares the blobs on disk with their digests and with the records.
func (d *doctor) checkContent(ctx context.Context, db *metadata.DB, store *content.Store) error {
	before := d.standing + d.repaired
	whole, err := d.checkBlobs(ctx, store)
	if err != nil {
		return err
	}
	namespaces, err := db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		if err := errors.Join(d.lostBlobs(ctx, db, ns, whole), d.unlistedBlobs(ctx, db, store, ns, whole)); err != nil {
			return err
		}
	}
	if d.standing+d.repaired == before {
		d.fine(fmt.Sprintf("content: %d blobs are what their names say", len(whole)))
	}
	return nil
}

// checkBlobs reads every blob, and returns the sizes of those that match their digests.
func (d *doctor) checkBlobs(ctx context.Context, store *content.Store) (map[digest.Digest]int64, error) {
	whole := make(map[digest.Digest]int64)
	if d.repair {
		damaged, err := store.Reindex(ctx, content.ReindexOptions{}, func(info content.Info) error {
			whole[info.Digest] = info.Size
			return nil
		})
		for _, dmg := range damaged {
			d.fixed(fmt.Sprintf("content %s is damaged: %s", dmg.Digest, dmg.Reason), "moved to "+dmg.Path+"; import or pull its image again")
		}
		return whole, err
	}
	return whole, store.Walk(ctx, func(info content.Info) error {
		err := store.Verify(ctx, info.Digest)
		if errdefs.IsDataLoss(err) {
			d.finding(fmt.Sprintf("content %s is damaged", info.Digest), "what is made of it is not what was pulled",
				runRepair+" to move it aside, then import or pull its image again")
			return nil
		}
		if err != nil {
			return err
		}
		whole[info.Digest] = info.Size
		return nil
	})
}

// lostBlobs finds records of blobs that do not exist.
func (d *doctor) lostBlobs(ctx context.Context, db *metadata.DB, ns string, whole map[digest.Digest]int64) error {
	var lost []digest.Digest
	err := db.View(ctx, func(tx *metadata.Tx) error {
		return tx.Content(ns).Walk(func(b metadata.Blob) error {
			if size, ok := whole[b.Digest]; !ok || size != b.Size {
				lost = append(lost, b.Digest)
			}
			return nil
		})
	})
	if err != nil || len(lost) == 0 {
		return err
	}
	if d.repair {
		err = db.Update(ctx, func(tx *metadata.Tx) error {
			for _, dg := range lost {
				if err := tx.Content(ns).Delete(dg); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, dg := range lost {
		what := fmt.Sprintf("content %s is on record in namespace %s and not whole on disk", dg, ns)
		if d.repair {
			d.fixed(what, "took the record away, so that it can be imported or pulled again")
		} else {
			d.finding(what, "images that need it cannot be unpacked or exported", runRepair+", then import or pull them again")
		}
	}
	return nil
}

// unlistedBlobs finds blobs that the images of a namespace need and that are on disk, but of which
// the namespace has no record.
func (d *doctor) unlistedBlobs(ctx context.Context, db *metadata.DB, store *content.Store, ns string, whole map[digest.Digest]int64) error {
	var images []metadata.Image
	listed := make(map[digest.Digest]bool)
	err := db.View(ctx, func(tx *metadata.Tx) (err error) {
		if images, err = tx.Images(ns).List(); err != nil {
			return err
		}
		return tx.Content(ns).Walk(func(b metadata.Blob) error {
			listed[b.Digest] = true
			return nil
		})
	})
	if err != nil {
		return err
	}
	var missing []metadata.Blob
	for _, img := range images {
		err := image.Walk(ctx, provider{store}, img.Target, func(desc ocispec.Descriptor) error {
			if size, ok := whole[desc.Digest]; ok && !listed[desc.Digest] {
				listed[desc.Digest] = true
				missing = append(missing, metadata.Blob{Digest: desc.Digest, Size: size})
			}
			return nil
		})
		if err != nil && !errdefs.IsNotFound(err) {
			d.finding(fmt.Sprintf("image %q in namespace %s cannot be read: %v", img.Name, ns, err), "it cannot be run or exported", "remove it, and import or pull it again")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	what := fmt.Sprintf("%d blobs that images of namespace %s need are on disk and not on record", len(missing), ns)
	if !d.repair {
		d.finding(what, "these images cannot be unpacked or exported", runRepair)
		return nil
	}
	err = db.Update(ctx, func(tx *metadata.Tx) error {
		for _, b := range missing {
			if _, err := tx.Content(ns).Create(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		d.fixed(what, "verified them and put them on record")
	}
	return err
}

// provider gives package image access to the whole store.
type provider struct{ *content.Store }

// ReaderAt implements image.Provider.
func (p provider) ReaderAt(ctx context.Context, dg digest.Digest) (image.Blob, error) {
	return p.Store.ReaderAt(ctx, dg)
}

// checkSnapshots compares the directories of snapshots with the records.
func (d *doctor) checkSnapshots(ctx context.Context, db *metadata.DB) error {
	namespaces, err := db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	before, total := d.standing+d.repaired, 0
	for _, ns := range namespaces {
		err := db.View(ctx, func(tx *metadata.Tx) error {
			for _, name := range tx.Snapshotters(ns) {
				if !slices.Contains(config.OwnSnapshotters(), name) {
					continue // another process keeps them
				}
				list, err := tx.Snapshots(ns, name).List()
				if err != nil {
					return err
				}
				total += len(list)
				for _, v := range list {
					d.snapshotDirectory(ns, name, v)
					d.staleMount(ns, name, v)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if d.standing+d.repaired == before {
		d.fine(fmt.Sprintf("snapshots: %d have their directory", total))
	}
	return nil
}

func (d *doctor) snapshotDirectory(ns, snapshotter string, v metadata.Snapshot) {
	dir := filepath.Join(d.cfg.Root, "snapshots", snapshotter, fmt.Sprint(v.ID))
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return
	}
	d.finding(fmt.Sprintf("snapshot %q of %s in namespace %s has no directory %s", v.Key, snapshotter, ns, dir),
		"containers and layers on it cannot be used", "remove what uses it and the snapshot itself, then import or pull its image again")
}

// staleMount finds snapshots that a client created to mount an image and left behind.
func (d *doctor) staleMount(ns, snapshotter string, v metadata.Snapshot) {
	if why := images.StaleMount(v, time.Now()); why != "" {
		d.finding(fmt.Sprintf("snapshot %q of %s in namespace %s was made to be mounted, and %s", v.Key, snapshotter, ns, why),
			"it takes space for nothing", "start cleatd, which removes it, or: cleat --namespace "+ns+" image unmount --rm "+images.MountTarget(v))
	}
}
