package metadata

import (
	"errors"

	bolt "go.etcd.io/bbolt"
)

// barrier records what is written while a collection runs. Only write transactions use it,
// one at a time, so that it needs no lock.
type barrier struct{ touched map[Object]struct{} }

// raise starts recording what is written. It happens inside a write transaction: no other is active
// then, so that each change is either recorded or precedes it.
func (db *DB) raise() (*barrier, error) {
	b := &barrier{touched: make(map[Object]struct{})}
	err := db.transact(true, func(*bolt.Tx) error {
		db.barrier.Store(b)
		return errRetry // roll back: there is nothing to put on disk
	})
	if !errors.Is(err, errRetry) {
		return nil, err
	}
	return b, nil
}

// touch records that a record was written.
func (tx *Tx) touch(ns string, path []string, key string) {
	if tx.barrier == nil {
		return
	}
	o := Object{Namespace: ns, Name: key}
	for _, n := range nouns() {
		if n.bucket == path[0] {
			o.Kind = n.kind
		}
	}
	if len(path) > 1 {
		o.Set = path[1]
	}
	if o.Kind != 0 {
		tx.barrier.touched[o] = struct{}{}
	}
}
