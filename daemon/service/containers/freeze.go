package containers

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

// labelFrozen marks a container that a request froze for a while. One that is found at start was left
// frozen by a daemon that died, and nothing else will thaw it.
const labelFrozen = "cleat.io/frozen"

// freeze stops the processes of a container if they run, and pushes the thaw. One that is
// paused already stays so.
func (s *Service) freeze(ctx context.Context, u *undo.Stack, namespace, id string) error {
	t, err := s.tasks.Get(namespace, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	switch status := t.Info().Status; status {
	case types.Status_CREATED, types.Status_STOPPED, types.Status_PAUSED:
		return nil
	case types.Status_RUNNING:
	default:
		return fmt.Errorf("state %s cannot be frozen: %w", StatusWord(t.Info()), errdefs.ErrUnavailable)
	}
	if err := s.markFrozen(ctx, namespace, id, "true"); err != nil {
		return err
	}
	u.Push("thaw container", func() error {
		if err := thaw(ctx, t); err != nil {
			return err // the mark stays, for the next start
		}
		return s.markFrozen(ctx, namespace, id, "")
	})
	// The end of ctx must not leave it half frozen.
	err = t.Pause(context.WithoutCancel(ctx))
	if ended(t) {
		return nil
	}
	return err
}

// thaw resumes a container. One that has ended does not need it.
func thaw(ctx context.Context, t *runtime.Task) error {
	ctx, cancel := undo.Context(ctx)
	defer cancel()
	err := t.Resume(ctx)
	if err == nil || ended(t) {
		return nil
	}
	if state, serr := t.State(ctx, ""); serr == nil && state.Status != types.Status_PAUSED && state.Status != types.Status_PAUSING {
		return nil // it was not frozen
	}
	return err
}

func ended(t *runtime.Task) bool {
	select {
	case <-t.Exited():
		return true
	default:
		return false
	}
}

// markFrozen sets or removes the mark.
func (s *Service) markFrozen(ctx context.Context, namespace, id, value string) error {
	ctx, cancel := undo.Context(ctx)
	defer cancel()
	err := s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Containers(namespace).Update(metadata.Container{ID: id, Labels: map[string]string{labelFrozen: value}}, "labels."+labelFrozen)
		return err
	})
	return undo.Ignore(err, errdefs.ErrNotFound)
}

// ThawLeft resumes the containers that an earlier daemon left frozen. A shim that does not answer is waited for.
func (s *Service) ThawLeft(ctx context.Context) error {
	namespaces, err := s.db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		var list []metadata.Container
		err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
			list, err = tx.Containers(ns).List(`labels."` + labelFrozen + `"==true`)
			return err
		})
		if err != nil {
			return err
		}
		for _, c := range list {
			s.wg.Go(func() {
				if err := s.thawOne(ctx, ns, c.ID); err != nil && ctx.Err() == nil {
					s.log.Error("cannot thaw a container left frozen by a commit", "id", c.ID, "namespace", ns, "error", err)
				}
			})
		}
	}
	return nil
}

func (s *Service) thawOne(ctx context.Context, namespace, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return err
	}
	defer unlock()
	t, err := s.tasks.Get(namespace, id)
	if err == nil {
		err = thaw(ctx, t)
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return s.markFrozen(ctx, namespace, id, "")
}
