package service

import (
	"cmp"
	"context"

	apievents "github.com/containerd/containerd/api/events"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
)

// CreateContainer records a container as a client describes it.
func (s *Service) CreateContainer(ctx context.Context, namespace string, c metadata.Container) (metadata.Container, error) {
	var created metadata.Container
	err := s.DB.Update(ctx, func(tx *metadata.Tx) error {
		v := c
		_, runtimeName, err := s.defaults(tx, namespace)
		if err != nil {
			return err
		}
		v.Runtime.Name = cmp.Or(v.Runtime.Name, runtimeName)
		if created, err = tx.Containers(namespace).Create(v); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/containers/create", announce.ContainerCreated(created))
	})
	return created, err
}

// UpdateContainer changes the fields that paths name.
func (s *Service) UpdateContainer(ctx context.Context, namespace string, c metadata.Container, paths []string) (metadata.Container, error) {
	var updated metadata.Container
	err := s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		if updated, err = tx.Containers(namespace).Update(c, paths...); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/containers/update", &apievents.ContainerUpdate{
			ID: updated.ID, Image: updated.Image, Labels: updated.Labels, SnapshotKey: updated.SnapshotKey,
		})
	})
	return updated, err
}

// DeleteContainer deletes the record, and the log of a container that Run made. Its task and its snapshot, if
// any, are the client's to delete.
func (s *Service) DeleteContainer(ctx context.Context, namespace, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id) // the log of the next container with this name stays
	if err != nil {
		return err
	}
	defer unlock()
	err = s.DB.Update(ctx, func(tx *metadata.Tx) error { return dropContainer(tx, namespace, id) })
	if err != nil {
		return err
	}
	s.removeLog(namespace, id)
	return nil
}

// dropContainer takes a container's record away.
func dropContainer(tx *metadata.Tx, namespace, id string) error {
	if err := tx.Containers(namespace).Delete(id); err != nil {
		return err
	}
	return announce.Add(tx, namespace, "/containers/delete", &apievents.ContainerDelete{ID: id})
}

// Container loads a record.
func (s *Service) Container(ctx context.Context, namespace, id string) (c metadata.Container, err error) {
	err = s.DB.View(ctx, func(tx *metadata.Tx) error {
		c, err = tx.Containers(namespace).Get(id)
		return err
	})
	return c, err
}
