package service

import (
	"context"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"

	"github.com/cleatproject/cleat/metadata"
)

// CreateImage records a name for content.
func (s *Service) CreateImage(ctx context.Context, namespace string, v metadata.Image) (img metadata.Image, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		img, err = tx.Images(namespace).Create(v)
		return err
	})
	if err != nil {
		return img, err
	}
	s.publish(namespace, "/images/create", &apievents.ImageCreate{Name: img.Name, Labels: img.Labels})
	return img, nil
}

// UpdateImage changes the fields that paths name.
func (s *Service) UpdateImage(ctx context.Context, namespace string, v metadata.Image, paths []string) (img metadata.Image, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		img, err = tx.Images(namespace).Update(v, paths...)
		return err
	})
	if err != nil {
		return img, err
	}
	s.publish(namespace, "/images/update", &apievents.ImageUpdate{Name: img.Name, Labels: img.Labels})
	return img, nil
}

// DeleteImage deletes a name. Its content stays until it is collected.
func (s *Service) DeleteImage(ctx context.Context, namespace, name string) error {
	err := s.DB.Update(ctx, func(tx *metadata.Tx) error { return tx.Images(namespace).Delete(name) })
	if err != nil {
		return err
	}
	s.publish(namespace, "/images/delete", &apievents.ImageDelete{Name: name})
	return nil
}

// RemoveImage deletes a name as people write it; what only it referred to goes with it.
func (s *Service) RemoveImage(ctx context.Context, namespace, ref string) error {
	img, err := s.resolve(ctx, namespace, ref)
	if err != nil {
		return err
	}
	if err := s.DeleteImage(ctx, namespace, img.Name); err != nil {
		return err
	}
	if _, err := s.Collect(ctx); err != nil {
		return fmt.Errorf("image %s is removed, its content is not: %w", img.Name, err)
	}
	return nil
}

// ContentCreated announces a blob that a client has committed.
func (s *Service) ContentCreated(namespace string, b metadata.Blob) {
	s.publish(namespace, "/content/create", &apievents.ContentCreate{Digest: b.Digest.String(), Size: b.Size})
}
