// Package containers holds the use cases of containers, their tasks and their sandboxes: from an image to a running
// process and back, list, commit, checkpoint, logs.
//
// A container is changed under its lock (Config.Locks). Directories, mounts and logs exist before the record that
// refers to them and are removed after it; no transaction is open during a call to a driver or a shim. A container
// that Run made is Managed: its exit is recorded, its task deleted, and the container removed if that was requested,
// also after a restart of the daemon (finish.go). Containers and tasks that clients make by other calls are theirs to
// delete.
package containers

import (
	"cmp"
	"context"
	"log/slog"
	goruntime "runtime"
	"sync"

	apievents "github.com/containerd/containerd/api/events"

	"github.com/cleatproject/cleat/daemon/service/activations"
	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/gate"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// Config is what a Service works with; all fields are required, but Process.
type Config struct {
	DB          *metadata.DB
	Tasks       *runtime.Manager
	Images      *images.Store
	Snapshots   *snapshots.Store
	Blobs       *blobs.Store
	Activations *activations.Store
	Cgroups     *namespaces.Cgroups
	Events      *events.Log
	Defaults    namespaces.Defaults
	// Process has the attributes of processes whose spec leaves them open.
	Process ProcessDefaults
	// Logs is the directory of the logs that the daemon keeps.
	Logs string
	// Locks are those under which containers are changed, by "namespace/id".
	Locks *keylock.Locks[string]
	Log   *slog.Logger
}

// removalsAtOnce is how many running containers are removed by force at the same time, for each processor.
const removalsAtOnce = 4

// Service holds the use cases of containers and their tasks. Its methods may be called concurrently.
type Service struct {
	db          *metadata.DB
	tasks       *runtime.Manager
	images      *images.Store
	snapshots   *snapshots.Store
	blobs       *blobs.Store
	activations *activations.Store
	cgroups     *namespaces.Cgroups
	events      *events.Log
	defaults    namespaces.Defaults
	process     ProcessDefaults
	logs        string
	locks       *keylock.Locks[string]
	log         *slog.Logger

	exits recentExits
	// removals bounds how many running containers are removed by force at the same time.
	removals *gate.Gate

	ctx    context.Context //nolint:containedctx // the life of the goroutines that follow containers
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns the containers in the stores of cfg. Close it.
func New(cfg Config) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{
		db: cfg.DB, tasks: cfg.Tasks, images: cfg.Images, snapshots: cfg.Snapshots, blobs: cfg.Blobs, activations: cfg.Activations,
		cgroups: cfg.Cgroups, events: cfg.Events, defaults: cfg.Defaults, process: cfg.Process, logs: cfg.Logs, locks: cfg.Locks, log: cfg.Log,
		removals: gate.New("remove a container", removalsAtOnce*goruntime.GOMAXPROCS(0), killLimit), ctx: ctx, cancel: cancel,
	}
}

// Close ends the goroutines that follow containers, and waits for them. Containers are left alone.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
}

// Create records a container as a client describes it.
func (s *Service) Create(ctx context.Context, namespace string, c metadata.Container) (metadata.Container, error) {
	var created metadata.Container
	err := s.db.Update(ctx, func(tx *metadata.Tx) error {
		v := c
		d, err := s.defaults.In(tx, namespace)
		if err != nil {
			return err
		}
		v.Runtime.Name = cmp.Or(v.Runtime.Name, d.Runtime)
		if created, err = tx.Containers(namespace).Create(v); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/containers/create", announce.ContainerCreated(created))
	})
	return created, err
}

// Update changes the fields that paths name.
func (s *Service) Update(ctx context.Context, namespace string, c metadata.Container, paths []string) (metadata.Container, error) {
	var updated metadata.Container
	err := s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if updated, err = tx.Containers(namespace).Update(c, paths...); err != nil {
			return err
		}
		return announce.Add(tx, namespace, "/containers/update", &apievents.ContainerUpdate{
			ID: updated.ID, Image: updated.Image, Labels: updated.Labels, SnapshotKey: updated.SnapshotKey,
		})
	})
	return updated, err
}

// Delete deletes the record, and the log of a container that Run made. Its task and its snapshot, if
// any, are the client's to delete.
func (s *Service) Delete(ctx context.Context, namespace, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id) // the log of the next container with this name stays
	if err != nil {
		return err
	}
	defer unlock()
	err = s.db.Update(ctx, func(tx *metadata.Tx) error { return dropContainer(tx, namespace, id) })
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

// Get returns the record of a container, or errdefs.ErrNotFound.
func (s *Service) Get(ctx context.Context, namespace, id string) (c metadata.Container, err error) {
	err = s.db.View(ctx, func(tx *metadata.Tx) error {
		c, err = tx.Containers(namespace).Get(id)
		return err
	})
	return c, err
}
