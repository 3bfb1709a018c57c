package metadata

import (
	"context"
	"fmt"

	digest "github.com/opencontainers/go-digest"
)

func removeImage(tx *Tx, o Object) (Removed, error) {
	return Removed{Object: o}, tx.Images(o.Namespace).Delete(o.Name)
}

func removeLease(tx *Tx, o Object) (Removed, error) {
	return Removed{Object: o}, tx.Leases(o.Namespace).Delete(o.Name)
}

func removeBlob(tx *Tx, o Object) (Removed, error) {
	c := tx.Content(o.Namespace)
	v, err := c.Get(digest.Digest(o.Name))
	if err == nil {
		err = c.Delete(v.Digest)
	}
	return Removed{Object: o, Size: v.Size}, err
}

func removeSnapshot(tx *Tx, o Object) (Removed, error) {
	v, err := tx.Snapshots(o.Namespace, o.Set).Remove(o.Name)
	return Removed{Object: o, Size: v.Size, SnapshotID: v.ID}, err
}

// Garbage returns what a collection would delete at this moment, each before what it refers
// to, and deletes nothing.
func (db *DB) Garbage(ctx context.Context) ([]Removed, error) {
	var out []Removed
	graphs, err := db.graphs(ctx)
	if err != nil {
		return nil, fmt.Errorf("find garbage: %w", err)
	}
	db.holds.mu.Lock()
	for _, g := range graphs {
		db.holds.markHeldLocked(g)
	}
	db.holds.mu.Unlock()
	err = db.View(ctx, func(tx *Tx) error {
		for _, g := range graphs {
			ordered, _ := g.garbage()
			for _, i := range ordered {
				out = append(out, tx.measure(g.nodes[i].object(g.ns)))
			}
		}
		return nil
	})
	return out, err
}

// measure sets the recorded size of a record; for a deleted one, nothing.
func (tx *Tx) measure(o Object) Removed {
	r := Removed{Object: o}
	switch o.Kind {
	case KindContent:
		if v, err := tx.Content(o.Namespace).Get(digest.Digest(o.Name)); err == nil {
			r.Size = v.Size
		}
	case KindSnapshot:
		if v, err := tx.Snapshots(o.Namespace, o.Set).Stat(o.Name); err == nil {
			r.Size, r.SnapshotID = v.Size, v.ID
		}
	case KindImage, KindContainer, KindSandbox, KindLease:
	}
	return r
}
