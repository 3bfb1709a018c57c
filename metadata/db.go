package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/cleatproject/cleat/internal/durable"
)

// schemaVersion is the version of the bucket layout that this code reads and writes.
const schemaVersion = 1

// mapped is how much address space the file gets from the beginning. A file that outgrows
// its map waits, with all writers, for every reader to end: a collection reads for long.
const mapped = 256 << 20

// growth is by how much the file grows at a time; bbolt's own 16 MiB is for big files.
const growth = 1 << 20

// Options change how the database is opened. The zero value is right for a daemon.
type Options struct {
	// LockWait bounds the wait for another process that holds the file; 0 means 5 s.
	LockWait time.Duration
	// Now is the clock for the times in records; nil means time.Now.
	Now func() time.Time
}

// DB is the open database. It is safe for concurrent use.
type DB struct {
	bolt *bolt.DB
	path string
	now  func() time.Time
	queue

	// What garbage collection needs; see gc.go.
	collecting sync.Mutex
	holds      holds
	barrier    atomic.Pointer[barrier]
	graphSizes sync.Map // of the last collection, by namespace
	changed    atomic.Pointer[func(Changes)]

	// snapshots guards the numbers handed out but perhaps not recorded yet.
	snapshots struct {
		sync.Mutex
		last     uint64
		reserved map[uint64]struct{}
	}
}

// Open opens the database at path, and makes it if it is missing, with default options.
// Only one process can have it open: a second one gets unavailable after a bounded wait.
// A damaged file is data loss, one written by a newer version failed precondition; both
// leave the file as it is.
func Open(path string) (*DB, error) { return OpenWith(path, Options{}) }

// OpenWith is Open with options.
func OpenWith(path string, opts Options) (*DB, error) {
	if opts.LockWait == 0 {
		opts.LockWait = 5 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	_, statErr := os.Stat(path)
	db := &DB{path: path, now: opts.Now}
	db.snapshots.reserved = make(map[uint64]struct{})
	if err := db.open(opts.LockWait); err != nil {
		return nil, err
	}
	if err := db.initialise(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		if err := durable.SyncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

func (db *DB) open(lockWait time.Duration) (err error) {
	defer db.shield(&err)()
	// The free list stays in the file: without it bbolt gathers it at open in a goroutine
	// of its own, where a damaged page is a panic that nobody can recover.
	db.bolt, err = bolt.Open(db.path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapped,
	})
	if err == nil {
		db.bolt.AllocSize = growth
	}
	return db.openError(err)
}

func (db *DB) openError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open metadata %s: another process holds it: stop the other cleatd or give this one a --root of its own: %w", db.path, errdefs.ErrUnavailable)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return db.damaged(err)
	default:
		return fmt.Errorf("open metadata %s: %w", db.path, err)
	}
}

// initialise makes the top buckets and reads what is kept in memory.
func (db *DB) initialise() error {
	return db.transact(true, func(btx *bolt.Tx) error {
		root, err := btx.CreateBucketIfNotExists([]byte(rootBucket))
		if err != nil {
			return err
		}
		if v := root.Get([]byte(schemaKey)); v == nil {
			if err := root.Put([]byte(schemaKey), binary.BigEndian.AppendUint64(nil, schemaVersion)); err != nil {
				return err
			}
		} else if got := uint64Of(v); got > schemaVersion {
			return fmt.Errorf("open metadata %s: its schema is %d and this cleatd knows %d: run the newer version again: %w", db.path, got, schemaVersion, errdefs.ErrFailedPrecondition)
		}
		db.snapshots.last = uint64Of(root.Get([]byte(sequenceKey)))
		_, err = root.CreateBucketIfNotExists([]byte(namespacesBucket))
		return err
	})
}

// Close waits for the transactions under way and closes the file.
func (db *DB) Close() (err error) {
	if db.bolt == nil {
		return nil
	}
	defer db.shield(&err)()
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close metadata %s: %w", db.path, err)
	}
	return nil
}

// View runs fn in a read-only transaction that sees one moment's state. It does not wait
// for updates. What fn reads may be kept after it returned, tx may not.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.transact(false, func(btx *bolt.Tx) error {
		return fn(db.tx(btx))
	})
}

// transact runs fn in a bbolt transaction and turns panics into errors.
func (db *DB) transact(writable bool, fn func(*bolt.Tx) error) (err error) {
	defer db.shield(&err)()
	if writable {
		err = db.bolt.Update(fn)
	} else {
		err = db.bolt.View(fn)
	}
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("metadata %s is closed: %w", db.path, errdefs.ErrUnavailable)
	}
	return err
}

// shield returns the function to defer around calls to bbolt: it panics on damaged pages,
// and a file cut short faults in its memory map.
func (db *DB) shield(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = db.damaged(fmt.Errorf("%v", r))
		}
	}
}

func (db *DB) damaged(cause error) error {
	return fmt.Errorf("metadata %s is damaged (%w): stop cleatd, move the file away or put a backup in its place, and start again; running containers are adopted without it: %w", db.path, cause, errdefs.ErrDataLoss)
}

func uint64Of(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
