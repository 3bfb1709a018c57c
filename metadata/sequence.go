package metadata

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// ReserveSnapshotID returns an unused driver's number, without writing anything. Call release once
// the record is committed, or the driver's directory removed; until then the number counts as live.
// release is idempotent.
//
// A number that never got a record may be returned again after a restart; drivers replace what they
// find under it.
func (db *DB) ReserveSnapshotID() (id uint64, release func()) {
	s := &db.snapshots
	s.Lock()
	defer s.Unlock()
	s.last++
	id = s.last
	s.reserved[id] = struct{}{}
	return id, sync.OnceFunc(func() {
		s.Lock()
		defer s.Unlock()
		delete(s.reserved, id)
	})
}

// LiveSnapshots returns a function that reports which of a driver's numbers are in use, in any
// namespace: recorded now, or reserved now or later. Driver.Cleanup uses it.
func (db *DB) LiveSnapshots(ctx context.Context, snapshotter string) (func(id uint64) bool, error) {
	// The reservations are read before the records: one that was released in between has
	// its record by then.
	ids := make(map[uint64]struct{})
	s := &db.snapshots
	s.Lock()
	last := s.last
	for id := range s.reserved {
		ids[id] = struct{}{}
	}
	s.Unlock()
	err := db.View(ctx, func(tx *Tx) error { return tx.snapshotIDs(snapshotter, ids) })
	if err != nil {
		return nil, fmt.Errorf("list snapshots in use: %w", err)
	}
	return func(id uint64) bool {
		_, ok := ids[id]
		return ok || id > last
	}, nil
}

// raiseSequence records that numbers up to id are used.
func (tx *Tx) raiseSequence(id uint64) error {
	last, err := readSequence(tx.root)
	if err != nil || last >= id {
		return err
	}
	return putSequence(tx.root, id)
}

// readSequence returns the highest snapshot number on record.
func readSequence(root *bolt.Bucket) (uint64, error) {
	raw := root.Get([]byte(sequenceKey))
	if raw == nil {
		return 0, nil
	}
	raw, err := scopeOf().open(sequenceKey, raw)
	if err != nil {
		return 0, fmt.Errorf("snapshot sequence: %w", err)
	}
	return uint64Of(raw), nil
}

func putSequence(root *bolt.Bucket, id uint64) error {
	record := scopeOf().seal(sequenceKey, binary.BigEndian.AppendUint64(nil, id))
	if err := root.Put([]byte(sequenceKey), record); err != nil {
		return fmt.Errorf("write snapshot sequence: %w", err)
	}
	return nil
}
