package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// TaskRequest describes the task of a recorded container.
type TaskRequest struct {
	// Launch is completed by the container's record.
	Launch runtime.LaunchOptions
	// Create is completed likewise, but for the spec, which is the record's, and the rootfs, which is that
	// of the container's snapshot where the request has none.
	Create runtime.CreateOptions
	// Checkpoint, if not nil, is the content to restore the processes from: they run once the task is started.
	Checkpoint *ocispec.Descriptor
}

// CreateTask is called by daemon/api/tasks.go and creates the task of a recorded container.
func (s *Service) CreateTask(ctx context.Context, namespace string, req TaskRequest) (_ *runtime.Task, err error) {
	id := req.Launch.ID
	defer s.tasks.Creating(namespace, id)()
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.planTask(ctx, namespace, &req); err != nil {
		return nil, err
	}
	restore, err := s.restoring(ctx, namespace, id, req.Checkpoint)
	if err != nil {
		return nil, err
	}
	defer restore.close()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	if req.Create.Rootfs, err = s.activations.ActivateTask(ctx, &u, namespace, id, req.Create.Rootfs); err != nil {
		return nil, fmt.Errorf("create task %s: %w", id, err)
	}
	defer s.cgroups.Enter(namespace)()

	l, err := s.tasks.Launch(ctx, namespace, req.Launch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }() // before the rest is undone
	if req.Create.Checkpoint, err = restore.unpack(ctx, l); err != nil {
		return nil, err
	}
	t, err := l.Create(ctx, req.Create)
	if err != nil {
		return nil, err
	}
	u.Push("abandon task", func() error { return t.Abandon(context.WithoutCancel(ctx)) })
	if err := t.Commit(); err != nil {
		return nil, err
	}
	u.Release()
	return t, nil
}

// planTask completes a request by the container's record.
func (s *Service) planTask(ctx context.Context, namespace string, req *TaskRequest) error {
	l, o := &req.Launch, &req.Create
	c, err := s.Get(ctx, namespace, l.ID)
	if err != nil {
		return err
	}
	if c.Spec == nil {
		return fmt.Errorf("container %s has no spec: %w", l.ID, errdefs.ErrFailedPrecondition)
	}
	if o.Spec, err = s.process.complete(c.Spec.Value); err != nil {
		return fmt.Errorf("spec of container %s: %w", l.ID, err)
	}
	l.Runtime = cmp.Or(l.Runtime, c.Runtime.Name)
	if l.Join == nil && c.SandboxID != "" {
		if l.Join, err = joinSandbox(s.tasks, namespace, c.SandboxID); err != nil {
			return fmt.Errorf("create task %s: %w", l.ID, err)
		}
	}
	if l.Options == nil && c.Runtime.Options != nil {
		l.Options = toWireAny(c.Runtime.Options)
	}
	if len(o.Rootfs) == 0 && c.SnapshotKey != "" {
		if o.Rootfs, err = s.snapshots.Mounts(ctx, namespace, c.Snapshotter, c.SnapshotKey); err != nil {
			return err
		}
	}
	return nil
}

func toWireAny(a *metadata.Any) *types.Any {
	if a == nil {
		return nil
	}
	return &types.Any{TypeUrl: a.TypeURL, Value: a.Value}
}

func fromWireAny(a *types.Any) *metadata.Any {
	if a == nil {
		return nil
	}
	return &metadata.Any{TypeURL: a.TypeUrl, Value: a.Value}
}

// DeleteTask is called by daemon/api/tasks.go and deletes a stopped task with what was mounted for it.
func (s *Service) DeleteTask(ctx context.Context, t *runtime.Task) (runtime.Exit, error) {
	if len(s.activations.OfTask(t.Namespace(), t.ID())) == 0 {
		return t.Delete(ctx)
	}
	unlock, err := s.locks.Lock(ctx, t.Namespace()+"/"+t.ID()) // so that no new task has mounts of that name
	if err != nil {
		return runtime.Exit{}, err
	}
	defer unlock()
	return s.deleteTaskLocked(ctx, t)
}

// deleteTaskLocked is DeleteTask under the container's lock. A failed unmount is not an error of the
// request: it is tried again with the next task, and when the container is gone.
func (s *Service) deleteTaskLocked(ctx context.Context, t *runtime.Task) (runtime.Exit, error) {
	exit, err := t.Delete(ctx)
	if err == nil {
		s.releaseDeleted(ctx, t)
	}
	return exit, err
}

func (s *Service) releaseDeleted(ctx context.Context, t *runtime.Task) {
	if err := s.activations.ReleaseTask(context.WithoutCancel(ctx), t.Namespace(), t.ID()); err != nil {
		s.log.Warn("cannot unmount the root file system of a deleted task, left to the next collection", "id", t.ID(), "namespace", t.Namespace(), "error", err)
	}
}
