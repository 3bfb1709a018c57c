package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
	"github.com/cleatproject/cleat/snapshot"
)

// specType is the published type of a container's spec.
const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

// Run is called by daemon/api/native.go: a container from its image to its running process, with
// one invocation of the OCI runtime and one commit. Until the commit there is nothing on record,
// and whatever a crash leaves is found by its missing record: the task by its uncommitted state, the
// snapshot by CleanSnapshots, the log by CleanLogs.
func (s *Service) Run(ctx context.Context, namespace string, req *cleatapi.RunRequest) (_ *cleatapi.RunResponse, err error) {
	id := first(req.Id, newID())
	if err := checkRun(req, id); err != nil {
		return nil, err
	}
	defer s.Runtime.Creating(namespace, id)()
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	cursor := s.Events.Cursor()
	hold := s.DB.Hold(namespace)
	defer hold.Release()
	r, err := s.planRun(ctx, hold, namespace, id, req)
	if err != nil {
		return nil, err
	}
	s.exits.drop(namespace + "/" + id)
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()

	release := func() {}
	r.create = runtime.CreateOptions{
		ID: id, Runtime: r.container.Runtime.Name, Options: req.Options,
		Late: func(ctx context.Context, o *runtime.CreateOptions) (err error) {
			release, err = s.furnish(ctx, hold, &u, namespace, r, req, o)
			return err
		},
	}
	defer s.cgroups.enter(namespace)()
	t, err := s.Runtime.Run(ctx, namespace, r.create)
	if err != nil {
		return nil, err
	}
	u.Push("abandon task", func() error {
		ctx, cancel := detached(ctx)
		defer cancel()
		return t.Abandon(ctx)
	})
	if err := s.commitRun(ctx, namespace, r, t); err != nil {
		return nil, err
	}
	u.Push("delete container", func() error {
		ctx, cancel := detached(ctx)
		defer cancel()
		return s.DB.Update(ctx, func(tx *metadata.Tx) error { return s.dropRecords(tx, namespace, r.container) })
	})
	if err := t.Commit(); err != nil {
		return nil, err
	}
	u.Release()
	release()
	s.follow(t)
	info := t.Info()
	return &cleatapi.RunResponse{
		Id: id, Pid: info.Pid, StartedAt: types.FromTime(info.StartedAt), Cursor: cursor, LogPath: r.run.LogPath,
	}, nil
}

// plan is a Run in the making.
type plan struct {
	container metadata.Container
	snapshot  *metadata.Snapshot // nil where a directory serves as root
	image     *imageInfo         // nil likewise
	run       runRecord
	create    runtime.CreateOptions
}

// newID returns a container id as Docker's users know it: 64 hex digits.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) //nolint:errcheck // never fails, by its contract
	return hex.EncodeToString(b[:])
}

func checkRun(req *cleatapi.RunRequest, id string) error {
	if err := metadata.ValidateID(id); err != nil {
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

// planRun looks up what the request names and checks that the container's name is free.
func (s *Service) planRun(ctx context.Context, hold *metadata.Hold, namespace, id string, req *cleatapi.RunRequest) (*plan, error) {
	r := &plan{container: metadata.Container{ID: id, Labels: req.Labels, CreatedAt: time.Now().UTC()}, run: runRecord{Token: req.Token}}
	err := s.DB.View(ctx, func(tx *metadata.Tx) error {
		snapshotter, runtimeName, err := s.defaults(tx, namespace)
		if err != nil {
			return err
		}
		r.container.Runtime = metadata.Runtime{Name: first(req.Runtime, runtimeName), Options: recordAny(req.Options)}
		if req.Image != "" {
			r.container.Snapshotter = first(req.Snapshotter, snapshotter)
		}
		if _, err := tx.Containers(namespace).Get(id); err == nil {
			return fmt.Errorf("container %s: %w", id, reason.ContainerExists)
		}
		return nil
	})
	if err != nil || req.Image == "" {
		return r, err
	}
	r.image, err = s.unpacked(ctx, hold, namespace, req.Image, req.Platform, r.container.Snapshotter)
	if err != nil {
		return nil, err
	}
	r.container.Image, r.container.SnapshotKey = r.image.name, id
	return r, nil
}

// furnish makes what the container needs while its shim starts: root file system, spec, log. The
// returned function ends the reservation of the snapshot's number once it is on record.
func (s *Service) furnish(
	ctx context.Context, hold *metadata.Hold, u *undo.Stack, namespace string, r *plan, req *cleatapi.RunRequest, o *runtime.CreateOptions,
) (func(), error) {
	release, err := s.runRootfs(ctx, hold, u, namespace, r, req, o)
	if err != nil {
		return nil, err
	}
	if err := s.runSpec(ctx, namespace, r, req, o); err != nil {
		return nil, err
	}
	return release, s.runLog(u, namespace, r, req, o)
}

// runRootfs prepares the container's snapshot.
func (s *Service) runRootfs(
	ctx context.Context, hold *metadata.Hold, u *undo.Stack, namespace string, r *plan, req *cleatapi.RunRequest, o *runtime.CreateOptions,
) (func(), error) {
	if req.Rootfs != "" {
		return func() {}, nil
	}
	d, err := s.driver(r.container.Snapshotter)
	if err != nil {
		return nil, err
	}
	labels, err := ownerLabels(req.Spec)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", r.container.ID, err)
	}
	if req.AutoRemove {
		labels[labelVolatile] = "true"
	}
	runStorageSize(req, labels)
	r.run.StorageSize = req.StorageSize
	p, err := s.prepare(ctx, hold, u, d, namespace, metadata.Snapshot{
		Key: r.container.SnapshotKey, Parent: r.image.chainID, Kind: snapshot.KindActive, Labels: labels,
	})
	if err != nil {
		return nil, err
	}
	r.snapshot = &p.record
	o.Rootfs, err = s.taskMounts(ctx, u, namespace, r.container.ID, p.mounts)
	return p.release, err
}

// runSpec completes the spec; the user is looked up in the container's own files.
func (s *Service) runSpec(ctx context.Context, namespace string, r *plan, req *cleatapi.RunRequest, o *runtime.CreateOptions) error {
	user := req.User
	if user == "" && r.image != nil {
		user = r.image.user
	}
	spec, err := parseSpec(req.Spec)
	if err != nil {
		return fmt.Errorf("run %s: %w", r.container.ID, err)
	}
	if user != "" || !spec.hasUser() {
		who, err := resolveUser(ctx, o.Rootfs, req.Rootfs, user)
		if err != nil {
			return fmt.Errorf("run %s: %w", r.container.ID, err)
		}
		if err := spec.setUser(who); err != nil {
			return fmt.Errorf("run %s: %w", r.container.ID, err)
		}
	}
	if o.Spec, err = s.completeSpec(spec, namespace, r.container.ID, req.Rootfs); err != nil {
		return fmt.Errorf("run %s: %w", r.container.ID, err)
	}
	r.container.Spec = &metadata.Any{TypeURL: specType, Value: o.Spec}
	r.run.Command = spec.args()
	return nil
}

// runLog settles the standard streams, and makes the log file where the daemon is to place it.
func (s *Service) runLog(u *undo.Stack, namespace string, r *plan, req *cleatapi.RunRequest, o *runtime.CreateOptions) error {
	o.Stdin, o.Stdout, o.Stderr, o.Terminal = req.Stdin, req.Stdout, req.Stderr, req.Terminal
	if req.Log {
		dir := s.logDir(namespace, r.container.ID)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create log of %s: %w", r.container.ID, err)
		}
		u.Push("remove log", func() error { return os.RemoveAll(dir) })
		r.run.LogPath = filepath.Join(dir, logName)
		f, err := os.OpenFile(r.run.LogPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fmt.Errorf("create log of %s: %w", r.container.ID, err)
		}
		o.Stdout = "file://" + r.run.LogPath
		o.Stderr = o.Stdout
	}
	r.run.AutoRemove = req.AutoRemove
	r.run.Terminal, r.run.Stdin, r.run.Stdout, r.run.Stderr = req.Terminal, o.Stdin, o.Stdout, o.Stderr
	return nil
}

// logName is the name of the file in logDir.
const logName = "container.log"

// logDir is where the daemon keeps the log of a container.
func (s *Service) logDir(namespace, id string) string {
	return filepath.Join(s.Root, "logs", namespace, id)
}

// commitRun puts container and snapshot on record.
func (s *Service) commitRun(ctx context.Context, namespace string, r *plan, t *runtime.Task) error {
	r.run.StartedAt = t.Info().StartedAt
	if err := setRecord(&r.container, &r.run); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *metadata.Tx) error {
		if r.snapshot != nil {
			if err := recordSnapshot(tx, namespace, r.container.Snapshotter, *r.snapshot); err != nil {
				return err
			}
		}
		if _, err := tx.Containers(namespace).Create(r.container); err != nil {
			return err
		}
		return announce(tx, namespace, "/containers/create", containerCreated(r.container))
	})
}

// dropRecords deletes a container and its snapshot from the database.
func (s *Service) dropRecords(tx *metadata.Tx, namespace string, c metadata.Container) error {
	if err := dropContainer(tx, namespace, c.ID); err != nil {
		return err
	}
	if c.SnapshotKey == "" {
		return nil
	}
	_, err := dropSnapshot(tx, namespace, c.Snapshotter, c.SnapshotKey)
	return ignore(err, errdefs.ErrNotFound)
}
