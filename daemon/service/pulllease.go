package service

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata"
)

// pullLease is how long what a pull has fetched is kept where the daemon dies in the middle of it.
const pullLease = 24 * time.Hour

// labelPull is on the lease of a pull, with the reference.
const labelPull = "cleat.io/pull"

// pullLeases are the leases of pulls that are under way.
type pullLeases struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (l *pullLeases) set(id string, active bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = make(map[string]bool)
	}
	if active {
		l.ids[id] = true
	} else {
		delete(l.ids, id)
	}
}

func (l *pullLeases) active(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[id]
}

// leasePull makes the lease of a pull.
func (s *Service) leasePull(ctx context.Context, namespace, ref string) (string, error) {
	id := "pull-" + rand.Text()
	s.pulls.set(id, true)
	err := s.DB.Update(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Leases(namespace).Create(metadata.Lease{ID: id, Labels: map[string]string{
			labelPull: ref, metadata.LabelExpire: time.Now().Add(pullLease).UTC().Format(time.RFC3339),
		}})
		return err
	})
	if err != nil {
		s.pulls.set(id, false)
	}
	return id, err
}

// endLease takes the lease of a pull away, whoever has left meanwhile. With it, when the image is there,
// go those that pulls of the same reference left behind which died with a daemon.
func (s *Service) endLease(ctx context.Context, namespace, lease, ref string, succeeded bool) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	defer s.pulls.set(lease, false)
	return s.DB.Update(ctx, func(tx *metadata.Tx) error {
		leases := tx.Leases(namespace)
		if err := ignore(leases.Delete(lease), errdefs.ErrNotFound); err != nil || !succeeded {
			return err
		}
		dead, err := leases.List(fmt.Sprintf("labels.%q==%q", labelPull, ref))
		if err != nil {
			return err
		}
		for _, l := range dead {
			if s.pulls.active(l.ID) {
				continue
			}
			if err := leases.Delete(l.ID); err != nil {
				return err
			}
		}
		return nil
	})
}
