package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/proto/reason"
)

const (
	// schemaVersion is the version of the bucket layout that this code reads and writes.
	schemaVersion = 2
	// sealedSchema is the first version whose records are sealed.
	sealedSchema = 2
)

// migration migrates the layout from one version to the next.
type migration struct {
	from uint64
	what string
	run  func(root *bolt.Bucket) error
}

// migrations lists all migrations, by version. They use the bucket names of their time and not the
// records' codec, so that they stay valid when the codec changes.
func migrations() []migration {
	return []migration{
		{from: 1, what: "seal the records, add the outbox", run: sealRecords},
	}
}

// latest returns the version that a table leads to.
func latest(table []migration) uint64 { return table[len(table)-1].from + 1 }

// migrate migrates the file to this code's version, in one transaction: a crash in the middle
// leaves the file unchanged, to be migrated at the next start. A file of a later version is refused
// and left unchanged.
func (db *DB) migrate(table []migration) error {
	var schema uint64
	err := db.transact(false, func(btx *bolt.Tx) error {
		root := btx.Bucket([]byte(rootBucket))
		if root == nil {
			return db.damaged(errors.New("no bucket " + rootBucket))
		}
		schema = uint64Of(root.Get([]byte(schemaKey)))
		return nil
	})
	if err != nil {
		return err
	}
	switch known := latest(table); {
	case schema == known:
		return nil
	case schema > known:
		return db.newer(schema, known)
	}
	if db.readOnly {
		return fmt.Errorf("open metadata %s: written by an older cleatd (schema %d): %w", db.path, schema, reason.MetadataOlder)
	}
	return db.transact(true, func(btx *bolt.Tx) error {
		root := btx.Bucket([]byte(rootBucket))
		for _, m := range table {
			if m.from < schema {
				continue
			}
			if err := m.run(root); err != nil {
				return fmt.Errorf("migrate metadata %s from schema %d to %d (%s): %w", db.path, m.from, m.from+1, m.what, err)
			}
		}
		return putSchema(root, latest(table))
	})
}

func putSchema(root *bolt.Bucket, version uint64) error {
	return root.Put([]byte(schemaKey), binary.BigEndian.AppendUint64(nil, version))
}

// sealRecords migrates version 1 to 2: every record gets its seal, the number of the last snapshot
// becomes a record, and the outbox is created.
func sealRecords(root *bolt.Bucket) error {
	if err := sealBelow(root, 0, map[string]bool{schemaKey: true, sequenceKey: true}); err != nil {
		return err
	}
	if raw := root.Get([]byte(sequenceKey)); len(raw) == 8 {
		if err := putSequence(root, uint64Of(raw)); err != nil {
			return err
		}
	}
	_, err := root.CreateBucketIfNotExists([]byte(outboxBucket))
	return err
}

// sealBelow seals the records in a bucket and the buckets within. What is sealed is skipped.
func sealBelow(b *bolt.Bucket, names scope, except map[string]bool) error {
	type entry struct{ key, value []byte }
	var todo []entry // a bucket must not change while it is read
	err := b.ForEach(func(k, v []byte) error {
		if v == nil {
			return sealBelow(b.Bucket(k), names.below(string(k)), nil)
		}
		if except[string(k)] {
			return nil
		}
		if _, err := names.open(string(k), v); err != nil {
			todo = append(todo, entry{append([]byte(nil), k...), names.seal(string(k), append([]byte(nil), v...))})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range todo {
		if err := b.Put(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}
