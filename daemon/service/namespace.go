package service

import (
	"context"
	"errors"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
)

// CreateNamespace makes a namespace.
func (s *Service) CreateNamespace(ctx context.Context, name string, labels map[string]string) error {
	return s.DB.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Create(name, labels); err != nil {
			return err
		}
		return announce.Add(tx, name, "/namespaces/create", &apievents.NamespaceCreate{Name: name, Labels: labels})
	})
}

// UpdateNamespace changes labels, all of them or those that paths name.
func (s *Service) UpdateNamespace(ctx context.Context, v metadata.Namespace, paths []string) (ns metadata.Namespace, err error) {
	err = s.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		if ns, err = tx.Namespaces().Update(v, paths...); err != nil {
			return err
		}
		return announce.Add(tx, ns.Name, "/namespaces/update", &apievents.NamespaceUpdate{Name: ns.Name, Labels: ns.Labels})
	})
	return ns, err
}

// DeleteNamespace deletes an empty namespace; tasks count as well as records.
func (s *Service) DeleteNamespace(ctx context.Context, name string) error {
	if n := len(s.Runtime.List(name)); n > 0 {
		return fmt.Errorf("namespace %s still has %d tasks: %w", name, n, errdefs.ErrFailedPrecondition)
	}
	err := s.DB.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Delete(name); err != nil {
			return err
		}
		return announce.Add(tx, name, "/namespaces/delete", &apievents.NamespaceDelete{Name: name})
	})
	if err != nil {
		return err
	}
	s.removeNamespaceCgroups(name)
	if err := s.blobs.DropIngests(context.WithoutCancel(ctx), name); err != nil {
		s.Log.Warn("cannot drop the uploads of a namespace that is gone", "namespace", name, "error", err)
	}
	return nil
}

// EnsureNamespace makes a namespace unless it is there; for the daemon's own default.
func (s *Service) EnsureNamespace(ctx context.Context, name string) error {
	err := s.DB.View(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Namespaces().Get(name)
		return err
	})
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return s.CreateNamespace(ctx, name, nil)
}
