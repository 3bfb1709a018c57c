// Package activations performs the mounts that the kernel cannot perform by itself, on behalf of clients and for the
// root file systems of containers, and releases those that nothing refers to any more.
//
// An activation is kept by its lease, or by an object that one of its labels names (containerd.io/gc.bref.*): a
// container, image, blob or snapshot. An activation without either is kept until it is deactivated. That of a task
// has its container's id as its name; a failed unmount is repeated with the next task and at each collection.
package activations

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/runtime"
)

// labelBackReference on an activation names what it is for: the kind, for a snapshot the snapshotter, and
// optionally a name of the reference follow, and the value is the object's name. While one of the objects is
// there, or its lease, the activation stays; then it is garbage. One without either stays until it is
// deactivated.
const labelBackReference = "containerd.io/gc.bref."

// ofTask reports whether an activation is that of a container's root file system. It has the container's id as its
// name, by which clients ask for it, and a label by which it is not one that a client made; older versions named
// it otherwise.
func ofTask(a activation.Activation, id string) bool {
	return a.Labels[labelBackReference+"container"] == id && (a.Name == id || a.Name == "task/"+id)
}

// Store is the mounts that the daemon performs because the kernel cannot mount them by itself: those of
// clients, and those of the root file systems of containers. Its methods may be called concurrently.
type Store struct {
	*activation.Manager
	db    *metadata.DB
	tasks *runtime.Manager
	locks *keylock.Locks[string] // of containers, by namespace and id
}

// New returns the mounts that manager performs for the containers in db. locks are those under which
// containers are changed, by "namespace/id".
func New(manager *activation.Manager, db *metadata.DB, tasks *runtime.Manager, locks *keylock.Locks[string]) *Store {
	return &Store{Manager: manager, db: db, tasks: tasks, locks: locks}
}

// Activate is called by daemon/api/mounts.go and performs mounts under the request's lease.
func (s *Store) Activate(ctx context.Context, namespace, name string, mounts []mount.Mount, o activation.Options) (activation.Activation, error) {
	if err := metadata.ValidateLabels(o.Labels); err != nil {
		return activation.Activation{}, fmt.Errorf("activate %s: %w", name, err)
	}
	if o.Lease = metadata.LeaseOf(ctx); o.Lease != "" {
		err := s.db.View(ctx, func(tx *metadata.Tx) error {
			_, err := tx.Leases(namespace).Get(o.Lease)
			return err
		})
		if err != nil {
			return activation.Activation{}, fmt.Errorf("activate %s: %w", name, err)
		}
	}
	return s.Manager.Activate(ctx, namespace, name, mounts, o)
}

// ActivateTask performs what the kernel cannot mount of a task's root file system, and pushes
// the undo. The caller holds the container's lock. Release undoes it once the container is gone.
func (s *Store) ActivateTask(ctx context.Context, u *undo.Stack, namespace, id string, mounts []mount.Mount) ([]mount.Mount, error) {
	if !activation.Handles(mounts) {
		return mounts, nil
	}
	if _, err := s.tasks.Get(namespace, id); err == nil {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	if err := s.ReleaseTask(ctx, namespace, id); err != nil { // those of an earlier task
		return nil, err
	}
	a, err := s.Manager.Activate(ctx, namespace, id, mounts, activation.Options{
		Labels: map[string]string{labelBackReference + "container": id},
	})
	if err != nil {
		return nil, err
	}
	u.Push("deactivate mounts", func() error { return s.Deactivate(context.WithoutCancel(ctx), namespace, id) })
	return a.System, nil
}

// OfTask returns the activations of a container's root file system: one, or none.
func (s *Store) OfTask(namespace, id string) (out []activation.Activation) {
	for _, name := range []string{id, "task/" + id} {
		if a, err := s.Info(namespace, name); err == nil && ofTask(a, id) {
			out = append(out, a)
		}
	}
	return out
}

// ReleaseTask undoes ActivateTask. The caller holds the container's lock.
func (s *Store) ReleaseTask(ctx context.Context, namespace, id string) (err error) {
	for _, a := range s.OfTask(namespace, id) {
		err = errors.Join(err, undo.Ignore(s.Deactivate(ctx, namespace, a.Name), errdefs.ErrNotFound))
	}
	return err
}

// Release deactivates what nothing refers to any more. It is called in each garbage collection.
func (s *Store) Release(ctx context.Context) (err error) {
	for _, a := range s.List("") {
		err = errors.Join(err, s.releaseMount(ctx, a))
	}
	return err
}

func (s *Store) releaseMount(ctx context.Context, a activation.Activation) error {
	if id := a.Labels[labelBackReference+"container"]; ofTask(a, id) {
		unlock, err := s.locks.Lock(ctx, a.Namespace+"/"+id) // whose record may be about to be made
		if err != nil {
			return err
		}
		defer unlock()
	}
	wanted, err := s.mountWanted(ctx, a)
	if err != nil || wanted {
		return err
	}
	return undo.Ignore(s.Deactivate(ctx, a.Namespace, a.Name), errdefs.ErrNotFound)
}

// mountWanted reports whether an object that an activation is for exists, or it is for none.
func (s *Store) mountWanted(ctx context.Context, a activation.Activation) (wanted bool, err error) {
	refers := a.Lease != ""
	err = s.db.View(ctx, func(tx *metadata.Tx) error {
		there := func(err error) error {
			if err == nil {
				wanted = true
			}
			return undo.Ignore(err, errdefs.ErrNotFound)
		}
		if a.Lease != "" {
			_, err := tx.Leases(a.Namespace).Get(a.Lease)
			if err := there(err); err != nil {
				return err
			}
		}
		for key, name := range a.Labels {
			kind, ok := strings.CutPrefix(key, labelBackReference)
			if !ok {
				continue
			}
			refers = true
			if err := there(exists(tx, a.Namespace, kind, name)); err != nil {
				return err
			}
		}
		return nil
	})
	return wanted || !refers, err
}

// exists answers whether what a back reference names is there: nil, errdefs.ErrNotFound, or that the reference
// is none, which counts as not found.
func exists(tx *metadata.Tx, namespace, kind, name string) (err error) {
	part := strings.FieldsFunc(kind, func(r rune) bool { return r == '.' || r == '/' })
	if len(part) == 0 {
		return errdefs.ErrNotFound
	}
	switch {
	case part[0] == "container":
		_, err = tx.Containers(namespace).Get(name)
	case part[0] == "image":
		_, err = tx.Images(namespace).Get(name)
	case part[0] == "content":
		_, err = tx.Content(namespace).Get(digest.Digest(name))
	case part[0] == "snapshot" && len(part) > 1:
		_, err = tx.Snapshots(namespace, part[1]).Stat(name)
	default:
		err = errdefs.ErrNotFound
	}
	return err
}
