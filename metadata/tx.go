package metadata

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/cleatproject/cleat/internal/identifier"
)

// The names of buckets and keys; see the package comment.
const (
	rootBucket       = "cleat"
	namespacesBucket = "namespaces"
	schemaKey        = "schema"
	sequenceKey      = "sequence"
	infoKey          = "info"
	containersBucket = "containers"
	imagesBucket     = "images"
	leasesBucket     = "leases"
	resourcesBucket  = "resources"
	blobsBucket      = "blobs"
	snapshotsBucket  = "snapshots"
	childrenBucket   = "children"
	sandboxesBucket  = "sandboxes"
	outboxBucket     = "outbox"
)

// Tx is a transaction. It is valid only inside the closure that receives it and belongs to that
// goroutine.
type Tx struct {
	bolt   *bolt.Tx
	root   *bolt.Bucket
	now    func() time.Time
	outbox *outbox
	// written is set by the first change, deleted by the first deletion.
	written, deleted bool
	// grown is the number of bytes by which the records have grown.
	grown int64
	// barrier records the changes while a collection runs; nil otherwise.
	barrier *barrier
	// lease holds what the transaction creates; see WithLease.
	lease string
}

func (db *DB) tx(btx *bolt.Tx) *Tx {
	return &Tx{bolt: btx, root: btx.Bucket([]byte(rootBucket)), now: db.now, outbox: &db.outbox, barrier: db.barrier.Load()}
}

// time returns the time for a record, in UTC and without a monotonic part.
func (tx *Tx) time() time.Time { return tx.now().UTC().Round(0) }

func (tx *Tx) namespaces() *bolt.Bucket { return tx.root.Bucket([]byte(namespacesBucket)) }

// read returns the bucket of a namespace at path, or nil if there is none.
func (tx *Tx) read(ns string, path ...string) *bolt.Bucket {
	b := tx.namespaces()
	if b == nil || ns == "" {
		return nil
	}
	b = b.Bucket([]byte(ns))
	for _, name := range path {
		if b == nil || name == "" {
			return nil
		}
		b = b.Bucket([]byte(name))
	}
	return b
}

// write returns the bucket of a namespace at path and creates what is missing. A namespace is
// created with the first record in it, as clients of the API rely on.
func (tx *Tx) write(ns string, path ...string) (*bolt.Bucket, error) {
	if err := identifier.Check(ns); err != nil {
		return nil, fmt.Errorf("namespace: %w", err)
	}
	b := tx.read(ns)
	if b == nil {
		if err := tx.Namespaces().Create(ns, nil); err != nil {
			return nil, err
		}
		b = tx.read(ns)
	}
	tx.written = true
	for _, name := range path {
		next, err := b.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return nil, fmt.Errorf("create bucket %s: %w", name, err)
		}
		b = next
	}
	return b, nil
}

// table holds the records of one noun: those of a namespace, one per key.
type table[T any] struct {
	tx   *Tx
	ns   string
	path []string
	noun string
	// keyField is the filter's field that is the key.
	keyField string
	columns  func(path []string) column
	encode   func(*T) []byte
	decode   func([]byte, *T) error
	// missing is the error of a record that does not exist. taken is the error of one that exists
	// already; nil for errdefs.ErrAlreadyExists.
	missing, taken error
}

// scope is the scope of the noun's records, for their seals.
func (t *table[T]) scope() scope {
	s := scopeOf(namespacesBucket, t.ns)
	for _, name := range t.path {
		s = s.below(name)
	}
	return s
}

// errorf adds the record to an error.
func (t *table[T]) errorf(key string, err error) error {
	return fmt.Errorf("%s %q in namespace %q: %w", t.noun, key, t.ns, err)
}

func (t *table[T]) has(key string) bool {
	b := t.tx.read(t.ns, t.path...)
	return b != nil && key != "" && b.Get([]byte(key)) != nil
}

func (t *table[T]) get(key string) (T, error) {
	var v T
	b := t.tx.read(t.ns, t.path...)
	var raw []byte
	if b != nil && key != "" {
		raw = b.Get([]byte(key))
	}
	if raw == nil {
		return v, t.errorf(key, t.missing)
	}
	raw, err := t.scope().open(key, raw)
	if err == nil {
		err = t.decode(raw, &v)
	}
	if err != nil {
		return v, t.errorf(key, err)
	}
	return v, nil
}

// put writes a record, new or not.
func (t *table[T]) put(key string, v *T) error {
	b, err := t.tx.write(t.ns, t.path...)
	if err != nil {
		return t.errorf(key, err)
	}
	data := t.scope().seal(key, t.encode(v))
	t.tx.grown += int64(len(data) - len(b.Get([]byte(key))))
	if err := b.Put([]byte(key), data); err != nil {
		return t.errorf(key, putError(err))
	}
	t.tx.touch(t.ns, t.path, key)
	return nil
}

// create writes a record whose key must be free.
func (t *table[T]) create(key string, v *T) error {
	if t.has(key) {
		return t.errorf(key, cmp.Or[error](t.taken, errdefs.ErrAlreadyExists))
	}
	return t.put(key, v)
}

func (t *table[T]) remove(key string) error {
	if !t.has(key) {
		return t.errorf(key, t.missing)
	}
	b, err := t.tx.write(t.ns, t.path...)
	if err != nil {
		return t.errorf(key, err)
	}
	if err := b.Delete([]byte(key)); err != nil {
		return t.errorf(key, err)
	}
	t.tx.deleted = true
	return nil
}

// putError sets the class of bbolt's errors about keys and values.
func putError(err error) error {
	if errors.Is(err, berrors.ErrKeyTooLarge) || errors.Is(err, berrors.ErrValueTooLarge) || errors.Is(err, berrors.ErrKeyRequired) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}
