package metadata

import (
	"context"
	"fmt"
)

type leaseKey struct{}

// WithLease returns a context whose calls of Update put what they create (blobs, snapshots) into a
// lease of the same namespace, in the same transaction. An Update that creates an object returns
// ErrNotFound if there is no such lease.
func WithLease(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, leaseKey{}, id)
}

// LeaseOf returns the lease that WithLease gave a context; "" for none.
func LeaseOf(ctx context.Context) string {
	id, _ := ctx.Value(leaseKey{}).(string)
	return id
}

// Lease puts an object that exists already, or is outside the database, into the context's lease.
// Without a lease it does nothing.
func (db *DB) Lease(ctx context.Context, ns string, r Resource) error {
	if LeaseOf(ctx) == "" {
		return nil
	}
	return db.Update(ctx, func(tx *Tx) error { return tx.HoldUnderLease(ns, r) })
}

// HoldUnderLease puts a resource into the transaction's lease, if it has one.
func (tx *Tx) HoldUnderLease(ns string, r Resource) error {
	if tx.lease == "" {
		return nil
	}
	if err := tx.Leases(ns).AddResource(tx.lease, r); err != nil {
		return fmt.Errorf("hold %s %s: %w", r.Type, r.ID, err)
	}
	return nil
}

// ReleaseFromLease removes a resource from the transaction's lease, for an upload that became a
// blob. This creates no garbage, so it does not count as a deletion.
func (tx *Tx) ReleaseFromLease(ns string, r Resource) error {
	if tx.lease == "" {
		return nil
	}
	deleted := tx.deleted
	err := tx.Leases(ns).DeleteResource(tx.lease, r)
	tx.deleted = deleted
	return err
}

func (s Snapshots) lease(key string) error {
	return s.table.tx.HoldUnderLease(s.table.ns, Resource{Type: ResourceSnapshots + s.snapshotter, ID: key})
}

// Leased returns the IDs of a type that unexpired leases of a namespace hold, for objects without a
// record here.
func (tx *Tx) Leased(ns, typ string) (map[string]bool, error) {
	leases, err := tx.Leases(ns).List()
	if err != nil {
		return nil, err
	}
	held := make(map[string]bool)
	for _, l := range leases {
		if end, ok, err := l.Expiry(); err == nil && ok && !end.After(tx.time()) {
			continue
		}
		resources, err := tx.Leases(ns).Resources(l.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range resources {
			if r.Type == typ {
				held[r.ID] = true
			}
		}
	}
	return held, nil
}
