package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// Namespaces holds the use cases of namespaces. Its methods may be called concurrently.
type Namespaces struct {
	db      *metadata.DB
	blobs   *blobs.Store
	tasks   *runtime.Manager
	cgroups *Cgroups
	log     *slog.Logger
}

// NewNamespaces returns the use cases of the namespaces in db, with the content, the tasks and the cgroups in them.
func NewNamespaces(db *metadata.DB, b *blobs.Store, tasks *runtime.Manager, cgroups *Cgroups, log *slog.Logger) *Namespaces {
	return &Namespaces{db: db, blobs: b, tasks: tasks, cgroups: cgroups, log: log}
}

// CreateNamespace makes a namespace.
func (s *Namespaces) CreateNamespace(ctx context.Context, name string, labels map[string]string) error {
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Create(name, labels); err != nil {
			return err
		}
		return announce.Add(tx, name, "/namespaces/create", &apievents.NamespaceCreate{Name: name, Labels: labels})
	})
}

// UpdateNamespace changes labels, all of them or those that paths name.
func (s *Namespaces) UpdateNamespace(ctx context.Context, v metadata.Namespace, paths []string) (ns metadata.Namespace, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if ns, err = tx.Namespaces().Update(v, paths...); err != nil {
			return err
		}
		return announce.Add(tx, ns.Name, "/namespaces/update", &apievents.NamespaceUpdate{Name: ns.Name, Labels: ns.Labels})
	})
	return ns, err
}

// DeleteNamespace deletes an empty namespace; tasks count as well as records.
func (s *Namespaces) DeleteNamespace(ctx context.Context, name string) error {
	if n := len(s.tasks.List(name)); n > 0 {
		return fmt.Errorf("namespace %s still has %d tasks: %w", name, n, errdefs.ErrFailedPrecondition)
	}
	err := s.db.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Delete(name); err != nil {
			return err
		}
		return announce.Add(tx, name, "/namespaces/delete", &apievents.NamespaceDelete{Name: name})
	})
	if err != nil {
		return err
	}
	s.cgroups.removeNamespace(name)
	if err := s.blobs.DropIngests(context.WithoutCancel(ctx), name); err != nil {
		s.log.Warn("cannot drop the uploads of a namespace that is gone", "namespace", name, "error", err)
	}
	return nil
}

// EnsureNamespace makes a namespace unless it is there; for the daemon's own default.
func (s *Namespaces) EnsureNamespace(ctx context.Context, name string) error {
	err := s.db.View(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Namespaces().Get(name)
		return err
	})
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return s.CreateNamespace(ctx, name, nil)
}
