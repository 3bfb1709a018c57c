package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cleatproject/cleat/snapshot"
)

// TestCollect_AgreesWithModel does random things, also during collections, and compares the result
// with a plain model.
func TestCollect_AgreesWithModel(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{y: newYard(t, "a", "b", "c"), rnd: rand.New(rand.NewPCG(seed, 7)), objects: map[Object]*thing{}, holds: map[Object]*Hold{}}
			removed, survived := 0, 0
			for round := range 40 {
				for range m.rnd.IntN(60) {
					m.step()
				}
				opts := CollectOptions{Batch: 1 + m.rnd.IntN(4)}
				busy := round%2 == 1
				if busy {
					opts.At = func(s SweepStep) error {
						if s == StepSweeping || s == StepSwept {
							return nil
						}
						if s == StepCommit {
							if err := m.check(false); err != nil {
								return err
							}
						}
						for range m.rnd.IntN(20) {
							m.step()
						}
						return nil
					}
				}
				c := m.y.collect(opts)
				if err := m.check(!busy); err != nil {
					t.Fatalf("round %d, busy %t: %v", round, busy, err)
				}
				removed += len(c.Removed)
				survived += len(m.objects)
			}
			if removed < 50 || survived < 50 {
				t.Errorf("removed %d, %d survived: the test does not test much", removed, survived)
			}
		})
	}
}

// TestLeasedWork_SafeDuringCollections has goroutines work under leases and holds, as clients do,
// during a series of collections.
func TestLeasedWork_SafeDuringCollections(t *testing.T) {
	y := newYard(t, "ns")
	ctx, stop := context.WithCancel(context.Background())
	var workers, collector sync.WaitGroup
	collected := 0
	collector.Go(func() {
		for ctx.Err() == nil {
			c, err := y.db.Collect(context.Background(), CollectOptions{Batch: 3})
			if err != nil {
				t.Error(err)
				return
			}
			collected += len(c.Removed)
		}
	})
	for w := range 4 {
		workers.Go(func() {
			for i := range 40 {
				if err := leasedWork(y.db, fmt.Sprintf("%d-%d", w, i), w%2 == 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	stop()
	collector.Wait()
	y.collect(CollectOptions{})
	if left := y.objects(); len(left) != 0 || collected == 0 {
		t.Errorf("left are %d objects, %d were collected concurrently", len(left), collected)
	}
}

// leasedWork stores an image of two blobs and a snapshot, finds all of it, and releases it.
func leasedWork(db *DB, id string, inMemory bool) error {
	ctx := context.Background()
	config, manifest := dgst("config"+id), dgst("manifest"+id)
	if inMemory {
		h := db.Hold("ns")
		defer h.Release()
		h.Content(config.String())
		h.Content(manifest.String())
		h.Snapshot("fs", "s"+id)
	} else {
		lease := "lease" + id
		if err := db.Update(ctx, func(tx *Tx) error { _, err := tx.Leases("ns").Create(Lease{ID: lease}); return err }); err != nil {
			return err
		}
		ctx = WithLease(ctx, lease)
	}
	number, release := db.ReserveSnapshotID()
	defer release()
	steps := []func(tx *Tx) error{
		func(tx *Tx) error { _, err := tx.Content("ns").Create(Blob{Digest: config}); return err },
		func(tx *Tx) error {
			_, err := tx.Content("ns").Create(Blob{Digest: manifest, Labels: labels{LabelRefContent + ".config": config.String()}})
			return err
		},
		func(tx *Tx) error {
			_, err := tx.Snapshots("ns", "fs").Create(Snapshot{Key: "s" + id, Kind: snapshot.KindActive, ID: number, Labels: labels{"x": strings.Repeat("x", 100)}})
			return err
		},
		func(tx *Tx) error {
			_, err := tx.Content("ns").Update(Blob{Digest: config, Labels: labels{LabelRefSnapshot + "fs": "s" + id}})
			return err
		},
		func(tx *Tx) error {
			v := target("x")
			v.Digest = manifest
			_, err := tx.Images("ns").Create(Image{Name: id, Target: v})
			return err
		},
		func(tx *Tx) error {
			if inMemory {
				return nil
			}
			return tx.Leases("ns").Delete("lease" + id)
		},
	}
	for n, step := range steps {
		if n == len(steps)-1 {
			ctx = context.Background()
		}
		if err := db.Update(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
	}
	err := db.View(context.Background(), func(tx *Tx) error {
		_, err1 := tx.Content("ns").Get(config)
		_, err2 := tx.Content("ns").Get(manifest)
		_, err3 := tx.Snapshots("ns", "fs").Stat("s" + id)
		return errors.Join(err1, err2, err3)
	})
	if err != nil {
		return err
	}
	return db.Update(context.Background(), func(tx *Tx) error { return tx.Images("ns").Delete(id) })
}
