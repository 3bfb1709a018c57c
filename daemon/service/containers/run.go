package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
	"github.com/cleatproject/cleat/snapshot"
)

// specType is the published type of a container's spec.
const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

// RunRequest describes a container to be run.
type RunRequest struct {
	// ID of the container; empty for 64 random hex digits.
	ID string
	// Image is a name, digest or the beginning of one; Rootfs is the absolute path of a directory to use
	// instead. One of them is given.
	Image, Rootfs string
	// Platform selects among the image's files; empty is this host's.
	Platform string
	// Spec is the OCI runtime spec as JSON. Run fills in root.path.
	Spec []byte
	// User is USER[:GROUP]; empty for the image's, then the spec's.
	User string
	// Snapshotter and Runtime are names; empty for the namespace's or the daemon's default.
	Snapshotter, Runtime string
	// Options are the runtime's own; optional.
	Options *types.Any
	Labels  map[string]string

	Stdin, Stdout, Stderr string
	Terminal              bool
	// Log has stdout and stderr written to a file of the daemon's, and excludes them.
	Log bool
	// AutoRemove removes the container when it stops.
	AutoRemove bool
	// StorageSize limits the writable layer, in bytes; 0 means unlimited.
	StorageSize int64
	// Token identifies this call to Remove; optional.
	Token string
}

// RunResult describes a container that runs.
type RunResult struct {
	ID        string
	Pid       uint32
	StartedAt time.Time
	// Cursor is a position in the event log from before the container was created.
	Cursor  uint64
	LogPath string // of the log that RunRequest.Log asks for
}

// Run is called by daemon/api/native/native.go: a container from its image to its running process, with
// one invocation of the OCI runtime and one commit. Until the commit there is nothing on record,
// and whatever a crash leaves is found by its missing record: the task by its uncommitted state, the
// snapshot by snapshots.Store.Clean, the log by CleanLogs.
func (s *Service) Run(ctx context.Context, namespace string, req RunRequest) (_ RunResult, err error) {
	req.ID = cmp.Or(req.ID, identifier.New())
	if err := req.check(); err != nil {
		return RunResult{}, err
	}
	defer s.tasks.Creating(namespace, req.ID)()
	unlock, err := s.locks.Lock(ctx, namespace+"/"+req.ID)
	if err != nil {
		return RunResult{}, err
	}
	defer unlock()
	cursor := s.events.Cursor()
	r := &run{s: s, namespace: namespace, req: req, hold: s.db.Hold(namespace), release: func() {}}
	defer r.hold.Release()
	defer func() { err = errors.Join(err, r.undo.Run()) }()
	if err := r.plan(ctx); err != nil {
		return RunResult{}, err
	}
	s.exits.drop(namespace + "/" + req.ID)
	defer s.cgroups.Enter(namespace)()

	l, err := s.tasks.Launch(ctx, namespace, runtime.LaunchOptions{ID: req.ID, Runtime: r.container.Runtime.Name, Options: req.Options})
	if err != nil {
		return RunResult{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }() // before the rest is undone
	if err := r.prepare(ctx); err != nil {
		return RunResult{}, err
	}
	t, err := l.Run(ctx, r.create)
	if err != nil {
		return RunResult{}, err
	}
	if err := r.commit(ctx, t); err != nil {
		return RunResult{}, err
	}
	s.follow(t)
	info := t.Info()
	return RunResult{ID: req.ID, Pid: info.Pid, StartedAt: info.StartedAt, Cursor: cursor, LogPath: r.record.LogPath}, nil
}

// run is one call of Run. It has one user.
type run struct {
	s         *Service
	namespace string
	req       RunRequest
	hold      *metadata.Hold
	undo      undo.Stack
	release   func() // ends the reservation of the snapshot's number

	container metadata.Container
	image     *images.Info       // nil where a directory serves as root
	snapshot  *metadata.Snapshot // nil likewise
	record    runRecord
	create    runtime.CreateOptions
}

// plan looks up what the request names and checks that the container's name is free.
func (r *run) plan(ctx context.Context) error {
	req := &r.req
	r.container = metadata.Container{ID: req.ID, Labels: req.Labels, CreatedAt: time.Now().UTC()}
	r.record = runRecord{Token: req.Token, AutoRemove: req.AutoRemove, StorageSize: req.StorageSize, Terminal: req.Terminal}
	err := r.s.db.View(ctx, func(tx *metadata.Tx) error {
		d, err := r.s.defaults.In(tx, r.namespace)
		if err != nil {
			return err
		}
		r.container.Runtime = metadata.Runtime{Name: cmp.Or(req.Runtime, d.Runtime), Options: fromWireAny(req.Options)}
		if req.Image != "" {
			r.container.Snapshotter = cmp.Or(req.Snapshotter, d.Snapshotter)
		}
		if _, err := tx.Containers(r.namespace).Get(req.ID); err == nil {
			return fmt.Errorf("container %s: %w", req.ID, reason.ContainerExists)
		}
		return nil
	})
	if err != nil || req.Image == "" {
		return err
	}
	r.image, err = r.s.images.Unpacked(ctx, r.hold, r.namespace, req.Image, req.Platform, r.container.Snapshotter)
	if err != nil {
		return err
	}
	r.container.Image, r.container.SnapshotKey = r.image.Name, req.ID
	return nil
}

// prepare makes what the container needs while its shim starts up: root file system, spec, log.
func (r *run) prepare(ctx context.Context) error {
	spec, err := parseSpec(r.req.Spec)
	if err != nil {
		return fmt.Errorf("run %s: %w", r.req.ID, err)
	}
	if r.req.Rootfs == "" {
		if err := r.prepareRootfs(ctx, spec); err != nil {
			return err
		}
	}
	if err := r.prepareSpec(ctx, spec); err != nil {
		return fmt.Errorf("run %s: %w", r.req.ID, err)
	}
	return r.prepareStreams()
}

// prepareRootfs prepares the container's snapshot.
func (r *run) prepareRootfs(ctx context.Context, spec parsedSpec) error {
	d, err := r.s.snapshots.Driver(r.container.Snapshotter)
	if err != nil {
		return err
	}
	labels, err := spec.ownerLabels()
	if err != nil {
		return fmt.Errorf("run %s: %w", r.req.ID, err)
	}
	if r.req.AutoRemove {
		labels[snapshots.LabelVolatile] = "true"
	}
	if size := r.req.StorageSize; size != 0 {
		labels[snapshots.LabelStorageSize] = strconv.FormatInt(size, 10)
	}
	p, err := r.s.snapshots.PrepareHeld(ctx, r.hold, &r.undo, d, r.namespace, metadata.Snapshot{
		Key: r.container.SnapshotKey, Parent: r.image.ChainID, Kind: snapshot.KindActive, Labels: labels,
	})
	if err != nil {
		return err
	}
	r.snapshot, r.release = &p.Record, p.Release
	r.create.Rootfs, err = r.s.activations.ActivateTask(ctx, &r.undo, r.namespace, r.req.ID, p.Mounts)
	return err
}

// prepareSpec completes the spec; the user is looked up in the container's own files.
func (r *run) prepareSpec(ctx context.Context, spec parsedSpec) error {
	user := r.req.User
	if user == "" && r.image != nil {
		user = r.image.User
	}
	if user != "" || !spec.hasUser() {
		who, err := resolveUser(ctx, r.create.Rootfs, r.req.Rootfs, user)
		if err != nil {
			return err
		}
		if err := spec.setUser(who); err != nil {
			return err
		}
	}
	var err error
	if r.create.Spec, err = spec.complete(r.s.process, r.s.cgroups.Of(r.namespace, r.req.ID), r.req.Rootfs); err != nil {
		return err
	}
	r.container.Spec = &metadata.Any{TypeURL: specType, Value: r.create.Spec}
	r.record.Command = spec.args()
	return nil
}

// prepareStreams sets the standard streams, and makes the log file where the daemon is to place it.
func (r *run) prepareStreams() error {
	o := &r.create
	o.Stdin, o.Stdout, o.Stderr, o.Terminal = r.req.Stdin, r.req.Stdout, r.req.Stderr, r.req.Terminal
	if r.req.Log {
		dir := r.s.logDir(r.namespace, r.req.ID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create log of %s: %w", r.req.ID, err)
		}
		r.undo.Push("remove log", func() error { return os.RemoveAll(dir) })
		r.record.LogPath = filepath.Join(dir, logName)
		f, err := os.OpenFile(r.record.LogPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fmt.Errorf("create log of %s: %w", r.req.ID, err)
		}
		o.Stdout = "file://" + r.record.LogPath
		o.Stderr = o.Stdout
	}
	r.record.Stdin, r.record.Stdout, r.record.Stderr = o.Stdin, o.Stdout, o.Stderr
	return nil
}

// commit puts container and snapshot on record, and then keeps the task.
func (r *run) commit(ctx context.Context, t *runtime.Task) error {
	r.undo.Push("abandon task", func() error {
		ctx, cancel := undo.Context(ctx)
		defer cancel()
		return t.Abandon(ctx)
	})
	r.record.StartedAt = t.Info().StartedAt
	if err := setRecord(&r.container, &r.record); err != nil {
		return err
	}
	if err := r.s.db.Update(ctx, r.createRecords); err != nil {
		return err
	}
	r.undo.Push("delete container", func() error {
		ctx, cancel := undo.Context(ctx)
		defer cancel()
		return r.s.db.Update(ctx, func(tx *metadata.Tx) error { return r.s.dropRecords(tx, r.namespace, r.container) })
	})
	if err := t.Commit(); err != nil {
		return err
	}
	r.undo.Release()
	r.release()
	return nil
}

// createRecords puts container and snapshot on record.
func (r *run) createRecords(tx *metadata.Tx) error {
	if r.snapshot != nil {
		if err := snapshots.Record(tx, r.namespace, r.container.Snapshotter, *r.snapshot); err != nil {
			return err
		}
	}
	if _, err := tx.Containers(r.namespace).Create(r.container); err != nil {
		return err
	}
	return announce.Add(tx, r.namespace, "/containers/create", announce.ContainerCreated(r.container))
}

// check validates what the request itself shows.
func (req *RunRequest) check() error {
	id := req.ID
	if err := identifier.Check(id); err != nil {
		return err
	}
	if (req.Image == "") == (req.Rootfs == "") {
		return fmt.Errorf("run %s: want an image or a rootfs directory, one of them: %w", id, errdefs.ErrInvalidArgument)
	}
	if req.Rootfs != "" && !filepath.IsAbs(req.Rootfs) {
		return fmt.Errorf("run %s: rootfs %q is not an absolute path: %w", id, req.Rootfs, errdefs.ErrInvalidArgument)
	}
	if req.Rootfs != "" && req.Platform != "" {
		return fmt.Errorf("run %s: a rootfs directory has no platform to choose: %w", id, errdefs.ErrInvalidArgument)
	}
	if req.Log && (req.Stdout != "" || req.Stderr != "" || req.Terminal) {
		return fmt.Errorf("run %s: a log file excludes stdout, stderr and terminal: %w", id, errdefs.ErrInvalidArgument)
	}
	if req.StorageSize != 0 {
		if req.Rootfs != "" {
			return fmt.Errorf("run %s: the storage of a rootfs directory cannot be limited, only that of an image's container: %w", id, errdefs.ErrInvalidArgument)
		}
		if err := snapshot.CheckLimit(req.StorageSize); err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
	}
	return metadata.ValidateLabels(req.Labels)
}

// logName is the name of the file in logDir.
const logName = "container.log"

// logDir is where the daemon keeps the log of a container.
func (s *Service) logDir(namespace, id string) string {
	return filepath.Join(s.logs, namespace, id)
}

// dropRecords deletes a container and its snapshot from the database.
func (s *Service) dropRecords(tx *metadata.Tx, namespace string, c metadata.Container) error {
	if err := dropContainer(tx, namespace, c.ID); err != nil {
		return err
	}
	if c.SnapshotKey == "" {
		return nil
	}
	_, err := snapshots.Drop(tx, namespace, c.Snapshotter, c.SnapshotKey)
	return undo.Ignore(err, errdefs.ErrNotFound)
}
