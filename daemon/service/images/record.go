package images

import (
	"context"
	"fmt"
	"strings"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// Create records a name for content.
func (s *Store) Create(ctx context.Context, namespace string, v metadata.Image, epoch time.Time) (img metadata.Image, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if img, err = tx.Images(namespace).At(epoch).Create(v); err != nil {
			return err
		}
		return announceRecord(tx, namespace, img, true)
	})
	return img, err
}

// Update changes the fields that paths name.
func (s *Store) Update(ctx context.Context, namespace string, v metadata.Image, paths []string, epoch time.Time) (img metadata.Image, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if img, err = tx.Images(namespace).At(epoch).Update(v, paths...); err != nil {
			return err
		}
		return announceRecord(tx, namespace, img, false)
	})
	return img, err
}

// Delete deletes a name while it means target, where that is given: otherwise not found, as if
// the name the caller speaks of were gone. Its content stays until it is collected.
func (s *Store) Delete(ctx context.Context, namespace, name string, target digest.Digest) error {
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		if target != "" {
			img, err := tx.Images(namespace).Get(name)
			if err != nil {
				return err
			}
			if img.Target.Digest != target {
				return fmt.Errorf("image %q is %s by now, not %s: %w", name, img.Target.Digest, target, reason.ImageNotFound)
			}
		}
		if err := tx.Images(namespace).Delete(name); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/images/delete", &apievents.ImageDelete{Name: name})
	})
}

// Remove deletes a name as people write it; what only it referred to goes with it. A digest that several
// names have is a failed precondition: it does not say which one is meant.
func (s *Store) Remove(ctx context.Context, namespace, ref string) error {
	found, err := s.resolveAll(ctx, namespace, ref)
	if err != nil {
		return err
	}
	img := found[0]
	if len(found) > 1 {
		names := make([]string, len(found))
		for i, f := range found {
			names[i] = f.Name
		}
		return fmt.Errorf("image %s has several names, %s: %w", ref, strings.Join(names, ", "), reason.ImageHasNames)
	}
	if err := s.Delete(ctx, namespace, img.Name, ""); err != nil {
		return err
	}
	if _, err := s.collector.Collect(ctx); err != nil {
		return fmt.Errorf("image %s is removed, its content is not: %w", img.Name, err)
	}
	return nil
}

// Records returns the namespace's images; none of a namespace that is not there.
func (s *Store) Records(ctx context.Context, namespace string) (list []metadata.Image, err error) {
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Images(namespace).List()
		return err
	})
	return list, err
}
