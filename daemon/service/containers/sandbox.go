package containers

import (
	"cmp"
	"context"

	apievents "github.com/containerd/containerd/api/events"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// Sandboxes holds the use cases of sandboxes. Its methods may be called concurrently.
type Sandboxes struct {
	db       *metadata.DB
	tasks    *runtime.Manager
	defaults namespaces.Defaults
	locks    keylock.Locks[string] // by namespace and id
}

// NewSandboxes returns the sandboxes in db, and their shims.
func NewSandboxes(db *metadata.DB, tasks *runtime.Manager, defaults namespaces.Defaults) *Sandboxes {
	return &Sandboxes{db: db, tasks: tasks, defaults: defaults}
}

// Create records a sandbox as a client describes it. A runtime that is not named is the
// namespace's default.
func (s *Sandboxes) Create(ctx context.Context, namespace string, v metadata.Sandbox) (created metadata.Sandbox, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		v := v
		d, err := s.defaults.In(tx, namespace)
		if err != nil {
			return err
		}
		v.Runtime.Name = cmp.Or(v.Runtime.Name, d.Runtime)
		if created, err = tx.Sandboxes(namespace).Create(v); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/sandboxes/create", &apievents.SandboxCreate{SandboxID: created.ID})
	})
	return created, err
}
