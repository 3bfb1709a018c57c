package service

import (
	"context"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// CreateImage records a name for content.
func (s *Service) CreateImage(ctx context.Context, namespace string, v metadata.Image) (img metadata.Image, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		if img, err = tx.Images(namespace).Create(v); err != nil {
			return err
		}
		return announceImage(tx, namespace, img, true)
	})
	return img, err
}

// UpdateImage changes the fields that paths name.
func (s *Service) UpdateImage(ctx context.Context, namespace string, v metadata.Image, paths []string) (img metadata.Image, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		if img, err = tx.Images(namespace).Update(v, paths...); err != nil {
			return err
		}
		return announceImage(tx, namespace, img, false)
	})
	return img, err
}

// DeleteImage deletes a name. Its content stays until it is collected. With a target, only while
// the name still means that: otherwise not found, as if the name the caller speaks of were gone.
func (s *Service) DeleteImage(ctx context.Context, namespace, name string, target digest.Digest) error {
	return s.DB.Update(ctx, func(tx *metadata.Tx) error {
		if target != "" {
			img, err := tx.Images(namespace).Get(name)
			if err != nil {
				return err
			}
			if img.Target.Digest != target {
				return fmt.Errorf("image %q is %s by now, not %s: %w", name, img.Target.Digest, target, errdefs.ErrNotFound)
			}
		}
		if err := tx.Images(namespace).Delete(name); err != nil {
			return err
		}
		return announce(tx, namespace, "/images/delete", &apievents.ImageDelete{Name: name})
	})
}

// DeleteImageSync is DeleteImage that returns when what only that name referred to is gone as well.
func (s *Service) DeleteImageSync(ctx context.Context, namespace, name string, target digest.Digest) error {
	var img metadata.Image
	err := s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		img, err = tx.Images(namespace).Get(name)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.DeleteImage(ctx, namespace, name, target); err != nil {
		return err
	}
	s.garbage.add(namespace, img.Target)
	s.collect(context.WithoutCancel(ctx))
	return nil
}

// TagImage gives an image, by name or digest, another name. A name that exists is moved.
func (s *Service) TagImage(ctx context.Context, namespace, source, target string) (*cleatapi.Image, error) {
	ref, err := registry.Parse(target)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, fmt.Errorf("tag image: the new name %s is one by digest, give one with a tag: %w", ref, errdefs.ErrInvalidArgument)
	}
	img, err := s.resolve(ctx, namespace, source)
	if err != nil {
		return nil, err
	}
	out, err := s.recordImages(ctx, namespace, []image.Imported{{Name: ref.String(), Target: img.Target}})
	if err != nil {
		return nil, fmt.Errorf("tag image %s: %w", source, err)
	}
	s.collect(context.WithoutCancel(ctx)) // what the name meant before
	return out[0], nil
}

// ContentCreated announces a blob that a client has committed.
func (s *Service) ContentCreated(namespace string, b metadata.Blob) {
	s.publish(namespace, "/content/create", &apievents.ContentCreate{Digest: b.Digest.String(), Size: b.Size})
}
