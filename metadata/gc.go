package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// Garbage collection.
//
// Kept are containers, images and leases that have not expired, objects with the label
// containerd.io/gc.root, objects that active calls hold (Hold), and all that these refer to, by
// their nature (an image its target, a container its snapshot, a snapshot its parent, a lease its
// resources) or by the published labels (gc_labels.go).
// Everything else is deleted: blobs, snapshots, expired leases and expired images.
//
// A collection does not block writers while it reads:
//
//  1. The barrier is raised (gc_barrier.go): from now on each written record is noted.
//  2. Mark, in a read transaction: the graph of each namespace, and what no root reaches.
//  3. Sweep, in short write transactions: what was written since, and what is held, is
//     marked with all it refers to, by the graph; what then is left unmarked is deleted, a
//     bounded number at a time, each record before those it refers to.
//
// What was written during a collection is kept by it, referenced or not; the next one checks it
// again. After a crash the next collection deletes the rest. The caller removes the files behind
// the records afterwards.

// SweepStep is a point of a collection that a test may stop at.
type SweepStep string

// The points, in their order; those of sweeping occur once per transaction.
const (
	StepMarked   SweepStep = "marked"   // the graph is read, nothing is deleted
	StepSweeping SweepStep = "sweeping" // inside the transaction, before the first deletion
	StepSwept    SweepStep = "swept"    // inside the transaction, after the last
	StepCommit   SweepStep = "commit"   // after the transaction was committed
)

// CollectOptions change a collection. The zero value suits a daemon.
type CollectOptions struct {
	// Batch bounds the deletions of a transaction; 0 means 250.
	Batch int
	// Removing, if set, is called for each record in the transaction that deletes it, and may add
	// to that; its error ends the collection.
	Removing func(*Tx, Removed) error
	// At, if set, is called at each point; its error ends the collection there.
	At func(SweepStep) error
}

// Removed is a record that a collection has deleted, or would delete.
type Removed struct {
	Object
	// Size is the recorded size on disk: a blob's length, and a committed snapshot's measured size.
	Size int64
	// SnapshotID is the driver's number of a snapshot.
	SnapshotID uint64
}

// Collection reports the result of a collection.
type Collection struct {
	// Objects were read, References were followed.
	Objects, References int
	Removed             []Removed
	// Marking is the time that reading took; it blocks no other work.
	Marking time.Duration
	// Pause is the longest time that writers were kept waiting, Paused all such times.
	Pause, Paused time.Duration
}

// defaultBatch is small enough for a transaction of a few milliseconds.
const defaultBatch = 250

// Collect deletes the records that nothing keeps. One collection runs at a time; another waits.
// After an error the Collection reports what was deleted before it. The caller removes the files of
// what is in Removed: snapshots by their number, blobs once Tx.BlobUsers returns no namespace.
func (db *DB) Collect(ctx context.Context, opts CollectOptions) (Collection, error) {
	db.collecting.Lock()
	defer db.collecting.Unlock()
	if opts.Batch <= 0 {
		opts.Batch = defaultBatch
	}
	if opts.At == nil {
		opts.At = func(SweepStep) error { return nil }
	}
	var c Collection
	b, err := db.raise()
	if err != nil {
		return c, fmt.Errorf("collect garbage: %w", err)
	}
	defer db.barrier.Store(nil)
	began := time.Now()
	s := &sweep{db: db, barrier: b, opts: opts, report: &c}
	s.graphs, err = db.graphs(ctx)
	c.Marking = time.Since(began)
	if err == nil {
		err = opts.At(StepMarked)
	}
	if err == nil {
		err = s.run(ctx)
	}
	if err != nil {
		return c, fmt.Errorf("collect garbage: %w", err)
	}
	return c, nil
}

// graphs reads and marks all namespaces.
func (db *DB) graphs(ctx context.Context) (all []*graph, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		return tx.namespaces().ForEachBucket(func(ns []byte) error {
			g := newGraph(string(ns), db.graphSize(string(ns)))
			if err := g.scan(ctx, tx, tx.time()); err != nil {
				return err
			}
			g.markRoots()
			db.graphSizes.Store(g.ns, len(g.nodes))
			all = append(all, g)
			return nil
		})
	})
	return all, err
}

// graphSize returns the size of a namespace's graph in the last collection, and a little more.
func (db *DB) graphSize(ns string) int {
	n, _ := db.graphSizes.Load(ns)
	size, _ := n.(int)
	return size + size/16
}

// sweep is the deleting phase of a collection.
type sweep struct {
	db      *DB
	barrier *barrier
	opts    CollectOptions
	graphs  []*graph
	garbage []candidate
	at      int // number of processed elements of garbage
	report  *Collection
}

type candidate struct {
	graph *graph
	node  int32
	// joined candidates are deleted in the same transaction as the previous one.
	joined bool
}

func (s *sweep) run(ctx context.Context) error {
	for _, g := range s.graphs {
		s.report.Objects += len(g.nodes)
		s.report.References += len(g.edges)
		ordered, whole := g.garbage()
		for at, i := range ordered {
			s.garbage = append(s.garbage, candidate{g, i, at > whole})
		}
	}
	for s.at < len(s.garbage) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.batch(); err != nil {
			return err
		}
		if err := s.opts.At(StepCommit); err != nil {
			return err
		}
	}
	return nil
}

// batch is one transaction: the only time during which a collection blocks writers.
func (s *sweep) batch() error {
	var removed []Removed
	var began time.Time
	at := s.at
	unlock := func() {}
	err := s.db.runSolo(func(btx *bolt.Tx) error {
		began = time.Now()
		s.db.holds.mu.Lock()
		unlock = sync.OnceFunc(s.db.holds.mu.Unlock)
		tx := s.db.tx(btx)
		tx.barrier = nil // its own deletions need no note
		if err := s.remark(tx); err != nil {
			return err
		}
		if err := s.opts.At(StepSweeping); err != nil {
			return err
		}
		var err error
		told := 0
		for at < len(s.garbage) && err == nil && (len(removed) < s.opts.Batch || s.garbage[at].joined) {
			removed, err = s.garbage[at].remove(tx, removed)
			at++
			if n := len(removed); err == nil && n > told && s.opts.Removing != nil {
				err = s.opts.Removing(tx, removed[n-1])
				told = n
			}
		}
		if err == nil {
			err = s.opts.At(StepSwept)
		}
		return err
	}, func() { unlock() })
	if err != nil {
		return err
	}
	s.at = at
	s.report.Removed = append(s.report.Removed, removed...)
	pause := time.Since(began)
	s.report.Pause, s.report.Paused = max(s.report.Pause, pause), s.report.Paused+pause
	return nil
}

// remark marks what came into use since the graph was read: what was written, and what is held now.
func (s *sweep) remark(tx *Tx) error {
	for _, g := range s.graphs {
		v := &visit{g: g, tx: tx, now: tx.time()}
		for o := range s.barrier.touched {
			if o.Namespace != g.ns {
				continue
			}
			i, err := v.rescan(o)
			if err != nil {
				return err
			}
			g.nodes[i].mark = unmarked // it may have new references
			g.mark(i, markedFull)
		}
		s.db.holds.markHeldLocked(g)
	}
	clear(s.barrier.touched)
	return nil
}

// remove deletes a candidate's record, unless it came into use or was deleted.
func (c candidate) remove(tx *Tx, removed []Removed) ([]Removed, error) {
	n := &c.graph.nodes[c.node]
	if !c.graph.collectable(c.node) {
		return removed, nil
	}
	noun, ok := nounOf(n.kind)
	if !ok || noun.remove == nil {
		return removed, nil
	}
	r, err := noun.remove(tx, n.object(c.graph.ns))
	switch {
	case err == nil:
		return append(removed, r), nil
	case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrFailedPrecondition):
		return removed, nil // a client was faster, or depends on it: left to the next collection
	default:
		return removed, err
	}
}
