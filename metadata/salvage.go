package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/metadata/boltfile"
)

// Salvaged is the result of salvaging a damaged database.
type Salvaged struct {
	// Kept is the number of copied records, Lost lists the others.
	Kept int
	Lost []Finding
}

// Salvage copies the readable part of the damaged file at path into a new database at into, which
// must not exist: records with a valid seal and, in a version without seals, those that can be
// decoded. Links between snapshots are created anew. The damaged file is only read.
//
// Snapshots whose record is lost still have their directory, which the next clean-up would remove;
// AdoptSnapshots keeps it.
func Salvage(path, into string) (_ *Salvaged, err error) {
	if _, err := os.Stat(into); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("salvage metadata: %s already exists", into), err)
	}
	f, size, err := openLocked(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The version decides whether records without seals are intact.
	a := account{snapshots: make(map[spot]string), links: make(map[spot]bool)}
	if err := boltfile.Walk(f, size, a.visitor()); err != nil {
		a.findings = []Finding{{Problem: err.Error()}}
	} else {
		a.close()
	}
	lost := &Salvaged{Lost: a.findings}
	if a.schema > schemaVersion {
		return nil, newDB(path, Options{}).newer(a.schema, schemaVersion)
	}
	fresh, err := OpenWith(into, Options{})
	if err != nil {
		return nil, err
	}
	c := copier{sealed: a.schema >= sealedSchema || a.schema == 0 && len(a.sealFindings) < a.records, out: lost}
	err = fresh.transact(true, func(btx *bolt.Tx) error { return c.copy(btx, f, size) })
	if err = errors.Join(err, fresh.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("salvage metadata: %w", err), os.Remove(into))
	}
	return lost, nil
}

// copier writes what a walk finds into another database.
type copier struct {
	sealed bool
	root   *bolt.Bucket
	out    *Salvaged
	last   uint64 // the highest snapshot number
	err    error
}

func (c *copier) copy(btx *bolt.Tx, f *os.File, size int64) error {
	c.root = btx.Bucket([]byte(rootBucket))
	// The absence of records was found before.
	_ = boltfile.Walk(f, size, boltfile.Visitor{Record: c.record})
	if c.err != nil {
		return c.err
	}
	if err := c.nameNamespaces(); err != nil {
		return err
	}
	return putSequence(c.root, c.last)
}

// record copies one record.
func (c *copier) record(path []string, key, value []byte) {
	if c.err != nil || len(path) == 0 || path[0] != rootBucket || len(path) == 1 && string(key) == schemaKey {
		return
	}
	if len(path) == 1 && string(key) == sequenceKey {
		c.sequence(value)
		return
	}
	if len(path) > 3 && path[3] == childrenBucket {
		return // created anew
	}
	names := scopeOf(path[1:]...)
	record, err := names.open(string(key), value)
	if err != nil && !c.sealed {
		record, err = value, nil
	}
	if err == nil {
		_, err = decodeRecord(path, string(key), record)
	}
	if err != nil {
		return // reported already
	}
	c.out.Kept++
	c.err = c.put(path[1:], names, string(key), record)
	if c.err == nil && len(path) == 5 && path[3] == snapshotsBucket {
		c.err = c.snapshot(path, record)
	}
}

func (c *copier) put(path []string, names scope, key string, record []byte) (err error) {
	b := c.root
	for _, name := range path {
		if b, err = b.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	return b.Put([]byte(key), names.seal(key, append([]byte(nil), record...)))
}

func (c *copier) sequence(value []byte) {
	record, err := scopeOf().open(sequenceKey, value)
	if err != nil && !c.sealed {
		record, err = value, nil
	}
	if err == nil {
		c.last = max(c.last, uint64Of(record))
	}
}

// snapshot creates the link from a snapshot's parent.
func (c *copier) snapshot(path []string, record []byte) error {
	var v Snapshot
	if err := decodeSnapshot(record, &v); err != nil {
		return err
	}
	c.last = max(c.last, v.ID)
	if v.Parent == "" {
		return nil
	}
	at := []string{namespacesBucket, path[2], childrenBucket, path[4]}
	return c.put(at, scopeOf(at...), v.Parent+"\x00"+v.Key, nil)
}

// nameNamespaces creates a record for namespaces that lost theirs.
func (c *copier) nameNamespaces() error {
	all := c.root.Bucket([]byte(namespacesBucket))
	var nameless []string
	err := all.ForEachBucket(func(name []byte) error {
		if all.Bucket(name).Get([]byte(infoKey)) == nil {
			nameless = append(nameless, string(name))
		}
		return nil
	})
	for _, ns := range nameless {
		record := encodeNamespace(&Namespace{Name: ns})
		err = errors.Join(err, c.put([]string{namespacesBucket, ns}, infoScope(ns), infoKey, record))
	}
	return err
}
