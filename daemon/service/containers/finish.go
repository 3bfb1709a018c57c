package containers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// follow waits for the exit of a container made by Run, then puts it on record and takes its task
// and shim away, or the whole container where that was asked for.
func (s *Service) follow(t *runtime.Task) {
	s.wg.Go(func() {
		select {
		case <-t.Exited():
		case <-s.ctx.Done():
			return
		}
		if err := s.finish(s.ctx, t.Namespace(), t.ID()); err != nil && s.ctx.Err() == nil {
			s.log.Error("cannot delete an exited container's task", "id", t.ID(), "namespace", t.Namespace(), "error", err)
		}
	})
}

// finish does what follow is for. Idempotent.
func (s *Service) finish(ctx context.Context, namespace, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := s.Get(ctx, namespace, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // removed by a client concurrently
	}
	if err != nil {
		return err
	}
	r, err := record(c)
	if err != nil || r == nil {
		return err
	}
	if r.AutoRemove {
		return s.removeLocked(ctx, namespace, c, false)
	}
	t, err := s.tasks.Get(namespace, id)
	if err != nil {
		return undo.Ignore(err, errdefs.ErrNotFound)
	}
	// What is on record stands: its shim may have left since, without a record of its own.
	if info := t.Info(); r.Exit == nil || info.Exit.Pid != 0 && info.Exit.Pid != r.Exit.Pid {
		exit := &runExit{Status: info.Exit.Status, At: info.Exit.At, Pid: info.Exit.Pid, OOM: info.OOMKilled}
		if err := s.recordExit(ctx, namespace, c, r, exit); err != nil {
			return err
		}
	}
	_, err = s.deleteTaskLocked(context.WithoutCancel(ctx), t)
	return undo.Ignore(err, errdefs.ErrNotFound)
}

// recordExit makes an exit durable with the container.
func (s *Service) recordExit(ctx context.Context, namespace string, c metadata.Container, r *runRecord, exit *runExit) error {
	r.Exit = exit
	if err := setRecord(&c, r); err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Containers(namespace).Update(c, "extensions."+recordName)
		return err
	})
}

// Resume takes up, after a restart, every container that Run made: follows those that have a task,
// and settles those that lost theirs with the machine's last run.
func (s *Service) Resume(ctx context.Context) error {
	namespaces, err := s.db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		if err := s.resumeNamespace(ctx, ns); err != nil {
			return fmt.Errorf("resume namespace %s: %w", ns, err)
		}
	}
	return nil
}

func (s *Service) resumeNamespace(ctx context.Context, namespace string) error {
	var list []metadata.Container
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Containers(namespace).List()
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range list {
		if err := s.resumeContainer(ctx, namespace, c.ID); err != nil {
			s.log.Error("cannot resume a container", "id", c.ID, "namespace", namespace, "error", err)
		}
	}
	return nil
}

// resumeContainer takes up one container. Under its lock, so that a Run that is about to answer is
// not mistaken for one that lost its task.
func (s *Service) resumeContainer(ctx context.Context, namespace, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := s.Get(ctx, namespace, id)
	if err != nil {
		return undo.Ignore(err, errdefs.ErrNotFound)
	}
	r, err := record(c)
	if err != nil || r == nil {
		return err
	}
	t, err := s.tasks.Get(namespace, id)
	switch {
	case err == nil: // also where the exit is on record: the daemon died before it took the task away
		s.follow(t)
		return nil
	case !errors.Is(err, errdefs.ErrNotFound):
		return err
	case r.Exit != nil:
		return nil
	case r.AutoRemove:
		return s.removeLocked(ctx, namespace, c, true)
	}
	// Its bundle was lost in a reboot, and how it ended is not known.
	return s.recordExit(ctx, namespace, c, r, &runExit{Status: UnknownExit, At: time.Now().UTC()})
}

// UnknownExit is the published status for an end that was not observed.
const UnknownExit = 255

// Ran reports whether a container is on record as one that Run made and whose end is not known: its
// task, should the bundle say otherwise, was committed. Without a database nothing is known of any,
// and none is to be treated as incomplete.
func (s *Service) Ran(namespace, id string) bool {
	if s.db.Broken() != nil {
		return true
	}
	c, err := s.Get(s.ctx, namespace, id)
	if err != nil {
		return false
	}
	r, err := record(c)
	return err == nil && r != nil && r.Exit == nil
}

// Wait returns the exit of a container's init once it is known: from its task, from its record, or,
// for one that was removed a moment ago, from memory.
func (s *Service) Wait(ctx context.Context, namespace, id string) (runtime.Exit, error) {
	t, err := s.tasks.Await(ctx, namespace, id)
	if err == nil {
		return t.Wait(ctx, "")
	}
	if !errors.Is(err, errdefs.ErrNotFound) {
		return runtime.Exit{}, err
	}
	if e, ok := s.exits.get(namespace + "/" + id); ok {
		return e, nil
	}
	c, err := s.Get(ctx, namespace, id)
	if err != nil {
		return runtime.Exit{}, err
	}
	r, err := record(c)
	if err != nil {
		return runtime.Exit{}, err
	}
	if r == nil || r.Exit == nil {
		return runtime.Exit{}, fmt.Errorf("container %s has no task to wait for: %w", id, errdefs.ErrFailedPrecondition)
	}
	return runtime.Exit{Pid: r.Exit.Pid, Status: r.Exit.Status, At: r.Exit.At}, nil
}
