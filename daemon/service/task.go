package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// CreateTask is called by daemon/api/tasks.go and makes the task of a recorded container: load the
// container, take its mounts, have the runtime create it (runtime/create.go), commit. o.Spec is
// filled in here; o.Rootfs, where the client gave none, from the container's snapshot.
func (s *Service) CreateTask(ctx context.Context, namespace string, o runtime.CreateOptions) (_ *runtime.Task, err error) {
	defer s.Runtime.Creating(namespace, o.ID)()
	unlock, err := s.locks.Lock(ctx, namespace+"/"+o.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := s.container(ctx, namespace, o.ID)
	if err != nil {
		return nil, err
	}
	if c.Spec == nil {
		return nil, fmt.Errorf("container %s has no spec: %w", o.ID, errdefs.ErrFailedPrecondition)
	}
	if o.Spec, err = s.ProcessDefaults.complete(c.Spec.Value); err != nil {
		return nil, fmt.Errorf("spec of container %s: %w", o.ID, err)
	}
	o.Runtime = first(o.Runtime, c.Runtime.Name)
	if o.Join == nil && c.SandboxID != "" {
		if o.Join, err = s.joinSandbox(namespace, c.SandboxID); err != nil {
			return nil, fmt.Errorf("create task %s: %w", o.ID, err)
		}
	}
	if o.Options == nil && c.Runtime.Options != nil {
		o.Options = wireAny(c.Runtime.Options)
	}
	if len(o.Rootfs) == 0 && c.SnapshotKey != "" {
		if o.Rootfs, err = s.Mounts(ctx, namespace, c.Snapshotter, c.SnapshotKey); err != nil {
			return nil, err
		}
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	if o.Rootfs, err = s.taskMounts(ctx, &u, namespace, o.ID, o.Rootfs); err != nil {
		return nil, fmt.Errorf("create task %s: %w", o.ID, err)
	}
	defer s.cgroups.enter(namespace)()
	t, err := s.Runtime.Create(ctx, namespace, o)
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

func wireAny(a *metadata.Any) *types.Any {
	if a == nil {
		return nil
	}
	return &types.Any{TypeUrl: a.TypeURL, Value: a.Value}
}

func recordAny(a *types.Any) *metadata.Any {
	if a == nil {
		return nil
	}
	return &metadata.Any{TypeURL: a.TypeUrl, Value: a.Value}
}
