package metadata

import (
	"bytes"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/snapshot"
)

// maxDepth bounds a chain of parents; overlay accepts 500 layers.
const maxDepth = 500

// Snapshots are the snapshots of a namespace that one driver holds.
type Snapshots struct {
	table       table[Snapshot]
	snapshotter string
}

// Snapshots returns the snapshots in the namespace ns of the driver called snapshotter.
func (tx *Tx) Snapshots(ns, snapshotter string) Snapshots {
	return Snapshots{
		table: table[Snapshot]{
			tx: tx, ns: ns, path: []string{snapshotsBucket, snapshotter}, noun: "snapshot", keyField: "name", columns: snapshotColumn,
			encode: encodeSnapshot, decode: decodeSnapshot, missing: reason.SnapshotNotFound,
		},
		snapshotter: snapshotter,
	}
}

// Create records a snapshot of the kind KindActive or KindView under v.Key, which must be free,
// with the parent v.Parent, which must be committed (ErrNotFound, ErrFailedPrecondition). v.ID is
// the number from DB.ReserveSnapshotID under which the driver has prepared it.
func (s Snapshots) Create(v Snapshot) (Snapshot, error) {
	if err := s.validate(v.Key, v.Labels); err != nil {
		return v, fmt.Errorf("create snapshot: %w", err)
	}
	if v.Kind != snapshot.KindActive && v.Kind != snapshot.KindView || v.ID == 0 {
		return v, s.table.errorf(v.Key, fmt.Errorf("kind %s, number %d: %w", v.Kind, v.ID, errdefs.ErrInvalidArgument))
	}
	if s.table.has(v.Key) {
		return v, s.table.errorf(v.Key, errdefs.ErrAlreadyExists)
	}
	if _, err := s.ParentIDs(v.Parent); err != nil {
		return v, s.table.errorf(v.Key, err)
	}
	v.CreatedAt = s.table.tx.time()
	v.UpdatedAt = v.CreatedAt
	v.Size, v.Inodes, v.unknown = 0, 0, nil
	if err := s.table.put(v.Key, &v); err != nil {
		return v, err
	}
	if err := s.link(v.Parent, v.Key); err != nil {
		return v, err
	}
	if err := s.lease(v.Key); err != nil {
		return v, err
	}
	return v, s.table.tx.raiseSequence(v.ID)
}

func (s Snapshots) validate(key string, labels map[string]string) error {
	if err := identifier.Check(s.snapshotter); err != nil {
		return fmt.Errorf("snapshotter: %w", err)
	}
	if err := validateName("snapshot key", key); err != nil {
		return err
	}
	return ValidateLabels(labels)
}

// Hold puts a snapshot under the transaction's lease, if it has one. It returns ErrNotFound if there is no
// such snapshot.
func (s Snapshots) Hold(key string) error {
	if _, err := s.table.get(key); err != nil {
		return err
	}
	return s.lease(key)
}

// Stat returns a snapshot, or ErrNotFound.
func (s Snapshots) Stat(key string) (Snapshot, error) { return s.table.get(key) }

// ParentIDs returns the driver's numbers of a committed snapshot and all below it, in that order:
// the parents of a new child of it. For an empty name there are none.
func (s Snapshots) ParentIDs(parent string) ([]uint64, error) {
	var ids []uint64
	for parent != "" {
		v, err := s.table.get(parent)
		if err != nil {
			return nil, err
		}
		if v.Kind != snapshot.KindCommitted {
			return nil, s.table.errorf(parent, fmt.Errorf("parent is not committed: %w", errdefs.ErrFailedPrecondition))
		}
		if len(ids) == maxDepth {
			return nil, s.table.errorf(parent, fmt.Errorf("chain of more than %d snapshots: %w", maxDepth, errdefs.ErrFailedPrecondition))
		}
		ids = append(ids, v.ID)
		parent = v.Parent
	}
	return ids, nil
}

// List returns the snapshots that match one of the filters, by key; the fields are "name"
// (the key), "parent", "kind" and "labels.<key>".
func (s Snapshots) List(filter ...string) ([]Snapshot, error) { return s.table.list(filter...) }

func snapshotColumn(path []string) column {
	switch path[0] {
	case "name", "key":
		return column{num: records.SnapshotKeyField, always: true}
	case "parent":
		return column{num: records.SnapshotParentField}
	case "kind":
		return column{num: records.SnapshotKindField, number: func(u uint64) string { return snapshot.Kind(u).String() }}
	default:
		return labelColumn(path, records.SnapshotLabelsField)
	}
}

// Update changes the labels: all of them without paths, or those that paths name, as
// "labels.<key>".
func (s Snapshots) Update(v Snapshot, paths ...string) (Snapshot, error) {
	old, err := s.table.get(v.Key)
	if err != nil {
		return old, err
	}
	if err := UpdateLabels(&old.Labels, v.Labels, paths); err != nil {
		return old, s.table.errorf(v.Key, err)
	}
	old.UpdatedAt = s.table.tx.time()
	return old, s.table.put(old.Key, &old)
}

// Commit turns the active snapshot key into the committed one called name, with the size the driver
// measured and the labels given (the active one's are dropped). The driver must have put the data
// on disk before. It returns ErrAlreadyExists if name is taken, and ErrFailedPrecondition if key is
// not active.
func (s Snapshots) Commit(name, key string, usage snapshot.Usage, labels map[string]string) (Snapshot, error) {
	return s.commit(name, key, usage, labels, func(*Snapshot) error { return nil })
}

// CommitOn commits a snapshot that was created without a parent and makes it a child of the
// committed one called parent; its driver must be a snapshot.Layered. It returns ErrNotFound if
// there is no such parent, and ErrFailedPrecondition if that is not committed, or key has another
// parent.
func (s Snapshots) CommitOn(name, key, parent string, usage snapshot.Usage, labels map[string]string) (Snapshot, error) {
	return s.commit(name, key, usage, labels, func(v *Snapshot) error {
		if v.Parent != "" && v.Parent != parent {
			return s.table.errorf(key, fmt.Errorf("parent is %q already: %w", v.Parent, errdefs.ErrFailedPrecondition))
		}
		if _, err := s.ParentIDs(parent); err != nil {
			return err
		}
		v.Parent = parent
		return nil
	})
}

func (s Snapshots) commit(
	name, key string, usage snapshot.Usage, labels map[string]string, settle func(*Snapshot) error,
) (Snapshot, error) {
	if err := s.validate(name, labels); err != nil {
		return Snapshot{}, fmt.Errorf("commit snapshot: %w", err)
	}
	v, err := s.table.get(key)
	if err != nil {
		return v, err
	}
	if v.Kind != snapshot.KindActive {
		return v, s.table.errorf(key, fmt.Errorf("snapshot is %s, not active: %w", v.Kind, errdefs.ErrFailedPrecondition))
	}
	if s.table.has(name) {
		return v, s.table.errorf(name, errdefs.ErrAlreadyExists)
	}
	deleted := s.table.tx.deleted
	if err := s.table.remove(key); err != nil {
		return v, err
	}
	s.table.tx.deleted = deleted // only the name changes
	if err := s.unlink(v.Parent, key); err != nil {
		return v, err
	}
	if err := settle(&v); err != nil {
		return v, err
	}
	v.Key, v.Kind, v.Labels = name, snapshot.KindCommitted, labels
	v.Size, v.Inodes = usage.Size, usage.Inodes
	v.CreatedAt = s.table.tx.time() // it counts as new
	v.UpdatedAt = v.CreatedAt
	if err := s.table.put(name, &v); err != nil {
		return v, err
	}
	if err := s.lease(name); err != nil {
		return v, err
	}
	return v, s.link(v.Parent, name)
}

// Remove removes a record and returns it; the caller then removes the driver's directory v.ID. It
// returns ErrNotFound if there is none, and ErrFailedPrecondition if it has children.
func (s Snapshots) Remove(key string) (Snapshot, error) {
	v, err := s.table.get(key)
	if err != nil {
		return v, err
	}
	if child, ok := s.child(key); ok {
		return v, s.table.errorf(key, fmt.Errorf("parent of snapshot %q: %w", child, errdefs.ErrFailedPrecondition))
	}
	if err := s.table.remove(key); err != nil {
		return v, err
	}
	return v, s.unlink(v.Parent, key)
}

// child returns one snapshot whose parent is key.
func (s Snapshots) child(key string) (string, bool) {
	b := s.table.tx.read(s.table.ns, childrenBucket, s.snapshotter)
	if b == nil {
		return "", false
	}
	prefix := []byte(key + "\x00")
	k, _ := b.Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) {
		return "", false
	}
	return string(k[len(prefix):]), true
}

func (s Snapshots) link(parent, key string) error {
	if parent == "" {
		return nil
	}
	b, err := s.table.tx.write(s.table.ns, childrenBucket, s.snapshotter)
	if err != nil {
		return s.table.errorf(key, err)
	}
	link := parent + "\x00" + key
	record := scopeOf(namespacesBucket, s.table.ns, childrenBucket, s.snapshotter).seal(link, nil)
	if err := b.Put([]byte(link), record); err != nil {
		return s.table.errorf(key, putError(err))
	}
	return nil
}

func (s Snapshots) unlink(parent, key string) error {
	if parent == "" {
		return nil
	}
	b, err := s.table.tx.write(s.table.ns, childrenBucket, s.snapshotter)
	if err != nil {
		return s.table.errorf(key, err)
	}
	if err := b.Delete([]byte(parent + "\x00" + key)); err != nil {
		return s.table.errorf(key, err)
	}
	return nil
}

// snapshotIDs adds the numbers of all snapshots of the driver, in all namespaces.
func (tx *Tx) snapshotIDs(snapshotter string, ids map[uint64]struct{}) error {
	return tx.namespaces().ForEachBucket(func(ns []byte) error {
		s := tx.Snapshots(string(ns), snapshotter)
		return s.table.each(func(v Snapshot) error {
			ids[v.ID] = struct{}{}
			return nil
		})
	})
}

// Snapshotters returns the names of the drivers with snapshots in a namespace.
func (tx *Tx) Snapshotters(ns string) []string {
	b := tx.read(ns, snapshotsBucket)
	if b == nil {
		return nil
	}
	var names []string
	_ = b.ForEachBucket(func(k []byte) error {
		names = append(names, string(k))
		return nil
	})
	return names
}
