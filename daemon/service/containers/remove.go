package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// Remove deletes a container with everything that is only its own: task, snapshot, log. With force
// a running task is killed, also one whose container is not on record any more; without, that is
// errdefs.ErrFailedPrecondition and nothing changes. With a token, a container that another Run made is
// errdefs.ErrNotFound.
func (s *Service) Remove(ctx context.Context, namespace, id string, force bool, token string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := s.Get(ctx, namespace, id)
	if force && token == "" && errors.Is(err, errdefs.ErrNotFound) {
		return s.removeStray(ctx, namespace, id, err)
	}
	if err != nil {
		return err
	}
	if token != "" {
		r, err := record(c)
		if err != nil {
			return err
		}
		if r == nil || r.Token != token {
			return fmt.Errorf("container %s of another run: %w", id, reason.ContainerNotFound)
		}
	}
	return s.removeLocked(ctx, namespace, c, force)
}

// removeStray removes a task without a record of its container, which no other request can name. Where
// there is none either it returns missing.
func (s *Service) removeStray(ctx context.Context, namespace, id string, missing error) error {
	t, err := s.tasks.Get(namespace, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return missing
	}
	if err != nil {
		return err
	}
	return s.removeTask(ctx, t, true)
}

// removeLocked is Remove under the container's lock.
func (s *Service) removeLocked(ctx context.Context, namespace string, c metadata.Container, force bool) error {
	t, err := s.tasks.Get(namespace, c.ID)
	switch {
	case err == nil:
		if err := s.removeTask(ctx, t, force); err != nil {
			return err
		}
	case !errors.Is(err, errdefs.ErrNotFound):
		return err
	}
	return s.removeRecords(context.WithoutCancel(ctx), namespace, c)
}

// killLimit is how long a killed container may take to end before its shim is bypassed, not counting the time in
// which the host was too busy (runtime.Task.Patience).
const killLimit = 10 * time.Second

// removeTask deletes a task, killing it first where force allows.
func (s *Service) removeTask(ctx context.Context, t *runtime.Task, force bool) error {
	info := t.Info()
	if info.Status != types.Status_STOPPED {
		if !force {
			return fmt.Errorf("container %s is %s: %w",
				t.ID(), StatusWord(info), reason.ContainerRunning)
		}
		return s.KillAndDelete(ctx, t)
	}
	return undo.Ignore(s.DeleteStopped(ctx, t), errdefs.ErrNotFound)
}

// DeleteStopped deletes a stopped task; its exit remains known to clients that wait for it.
func (s *Service) DeleteStopped(ctx context.Context, t *runtime.Task) error {
	s.exits.put(t.Namespace()+"/"+t.ID(), t.Info().Exit)
	_, err := s.deleteTaskLocked(ctx, t)
	return err
}

// KillAndDelete ends a task by force and deletes it, the orderly way where its shim answers. A bounded number of tasks is
// removed so at the same time: each takes several calls, and the exits of all that are killed at once would hold up
// the deletions of the first.
func (s *Service) KillAndDelete(ctx context.Context, t *runtime.Task) error {
	leave, err := s.removals.Enter(ctx)
	if err != nil {
		return fmt.Errorf("remove container %s: %w", t.ID(), err)
	}
	defer leave()
	ctx, stop := t.Patience(ctx, killLimit)
	defer stop()
	if err = t.End(ctx); err == nil {
		err = s.DeleteStopped(ctx, t)
	}
	if err == nil || errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	s.log.Warn("shim did not delete a killed container; removing it with its shim", "id", t.ID(), "namespace", t.Namespace(), "error", err)
	if err := t.Abandon(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	s.releaseDeleted(ctx, t)
	return nil
}

// removeRecords deletes what is on record, then what is on disk.
func (s *Service) removeRecords(ctx context.Context, namespace string, c metadata.Container) error {
	var snap *metadata.Snapshot
	err := s.db.Update(ctx, func(tx *metadata.Tx) error {
		snap = nil
		if err := dropContainer(tx, namespace, c.ID); err != nil {
			return err
		}
		if r, err := record(c); err != nil || r == nil || c.SnapshotKey == "" {
			return err // the snapshot is the client's own to remove
		}
		v, err := snapshots.Drop(tx, namespace, c.Snapshotter, c.SnapshotKey)
		if err == nil {
			snap = &v
		}
		return undo.Ignore(err, errdefs.ErrNotFound)
	})
	if err != nil {
		return err
	}
	if snap != nil {
		if d, err := s.snapshots.Driver(c.Snapshotter); err == nil {
			s.snapshots.RemoveDirectory(ctx, d, snap.ID)
		}
	}
	s.removeLog(namespace, c.ID)
	return nil
}

// removeLog removes the log of a container that is not on record any more, under its lock. What stays goes at
// the next start.
func (s *Service) removeLog(namespace, id string) {
	if err := os.RemoveAll(s.logDir(namespace, id)); err != nil {
		s.log.Warn("cannot remove a container's log", "id", id, "namespace", namespace, "error", err)
	}
}

// CleanLogs removes the logs of containers that are not on record; at start, after crashes.
func (s *Service) CleanLogs(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(s.logs, "*", "*"))
	if err != nil {
		return err
	}
	var errs error
	for _, dir := range dirs {
		namespace, id := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if _, err := s.Get(ctx, namespace, id); errors.Is(err, errdefs.ErrNotFound) {
			errs = errors.Join(errs, os.RemoveAll(dir))
		}
	}
	if errs != nil {
		return fmt.Errorf("clean up logs: %w", errs)
	}
	return nil
}
