// Package namespaces holds the use cases of namespaces: their records, the defaults that their labels set, and the
// cgroups that OCI runtimes leave behind below the daemon's own.
//
// A namespace is deleted only when nothing is recorded in it and no task runs in it. Its uploads and its cgroup are
// then removed; a failure there is logged and left to a later start.
package namespaces

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

// Store holds the use cases of namespaces. Its methods may be called concurrently.
type Store struct {
	db      *metadata.DB
	blobs   *blobs.Store
	tasks   *runtime.Manager
	cgroups *Cgroups
	log     *slog.Logger
}

// New returns the use cases of the namespaces in db, with the content, the tasks and the cgroups in them.
func New(db *metadata.DB, b *blobs.Store, tasks *runtime.Manager, cgroups *Cgroups, log *slog.Logger) *Store {
	return &Store{db: db, blobs: b, tasks: tasks, cgroups: cgroups, log: log}
}

// Create creates a namespace and announces it. errdefs.ErrAlreadyExists if there is one of this name.
func (s *Store) Create(ctx context.Context, name string, labels map[string]string) error {
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Create(name, labels); err != nil {
			return err
		}
		return announce.Add(tx, name, "/namespaces/create", &apievents.NamespaceCreate{Name: name, Labels: labels})
	})
}

// Update changes labels, all of them or those that paths name.
func (s *Store) Update(ctx context.Context, v metadata.Namespace, paths []string) (ns metadata.Namespace, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if ns, err = tx.Namespaces().Update(v, paths...); err != nil {
			return err
		}
		return announce.Add(tx, ns.Name, "/namespaces/update", &apievents.NamespaceUpdate{Name: ns.Name, Labels: ns.Labels})
	})
	return ns, err
}

// Delete deletes an empty namespace; tasks count as well as records.
func (s *Store) Delete(ctx context.Context, name string) error {
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

// Ensure creates a namespace unless it exists.
func (s *Store) Ensure(ctx context.Context, name string) error {
	err := s.db.View(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Namespaces().Get(name)
		return err
	})
	if !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return s.Create(ctx, name, nil)
}
