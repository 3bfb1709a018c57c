package transfer

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
)

const (
	// pullLease is how long what a pull has fetched is kept where the daemon dies in the middle of it.
	pullLease = 24 * time.Hour
	// brokenLease is how long it is kept where the pull was broken off, for the next try.
	brokenLease = time.Hour
)

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

// createPullLease records a lease that ends by itself.
func createPullLease(leases metadata.Leases, ref string, lasts time.Duration) (string, error) {
	l, err := leases.Create(metadata.Lease{ID: "pull-" + rand.Text(), Labels: map[string]string{
		labelPull: ref, metadata.LabelExpire: time.Now().Add(lasts).UTC().Format(time.RFC3339),
	}})
	return l.ID, err
}

// leasePull makes the lease of a pull.
func (s *Service) leasePull(ctx context.Context, namespace, ref string) (id string, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		s.pulls.set(id, false) // of a transaction that was begun anew
		if id, err = createPullLease(tx.Leases(namespace), ref, pullLease); err == nil {
			s.pulls.set(id, true) // before it is visible
		}
		return err
	})
	if err != nil {
		s.pulls.set(id, false)
	}
	return id, err
}

// endLease deletes the lease of a pull, even if ctx has ended. With it, when the image is there,
// go those that broken pulls of the same reference left behind. Of one that was broken off itself, a lease
// stays for a while, with what theirs held.
func (s *Service) endLease(ctx context.Context, namespace, lease, ref string, failure error) error {
	ctx, cancel := undo.Context(ctx)
	defer cancel()
	defer s.pulls.set(lease, false)
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		leases := tx.Leases(namespace)
		ended := []string{lease}
		if failure == nil || interrupted(failure) {
			dead, err := leases.List(fmt.Sprintf("labels.%q==%q", labelPull, ref))
			if err != nil {
				return err
			}
			for _, l := range dead {
				if !s.pulls.active(l.ID) {
					ended = append(ended, l.ID)
				}
			}
		}
		if failure != nil && interrupted(failure) {
			if err := keepBroken(leases, ref, ended); err != nil {
				return err
			}
		}
		for _, id := range ended {
			if err := undo.Ignore(leases.Delete(id), errdefs.ErrNotFound); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepBroken has a new lease hold what others do, if they hold anything.
func keepBroken(leases metadata.Leases, ref string, of []string) error {
	var held []metadata.Resource
	for _, id := range of {
		more, err := leases.Resources(id)
		if err := undo.Ignore(err, errdefs.ErrNotFound); err != nil {
			return err
		}
		held = append(held, more...)
	}
	if len(held) == 0 {
		return nil
	}
	id, err := createPullLease(leases, ref, brokenLease)
	if err != nil {
		return err
	}
	for _, r := range held {
		if err := leases.AddResource(id, r); err != nil {
			return err
		}
	}
	return nil
}
