package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/proto/reason"
)

// mapped is the address space reserved for the file at open. A file that outgrows its map waits,
// with all writers, for every reader to end: a collection reads for long.
const mapped = 256 << 20

// growth is the step by which the file grows; bbolt's own 16 MiB suits big files.
const growth = 1 << 20

// Options change how the database is opened. The zero value suits a database without an event log.
type Options struct {
	// LockWait bounds the wait for another process that holds the file; 0 means 5 s.
	LockWait time.Duration
	// Now is the clock for the times in records; nil means time.Now.
	Now func() time.Time
	// ReadOnly opens an existing file with this version's layout and never writes to it; other
	// processes may open it in the same way.
	ReadOnly bool
	// Outlet receives the events that transactions publish; nil: they are dropped.
	Outlet Outlet
	// OnOutletError is called when the outlet refuses an event, which is retried after the next
	// update; nil to ignore.
	OnOutletError func(error)
	// Step is called before each step of an update, with the names in outbox.go: for tests that end
	// the process there. nil to ignore.
	Step func(name string)
}

// DB is the open database. It is safe for concurrent use.
type DB struct {
	bolt *bolt.DB
	path string
	now  func() time.Time
	// broken is returned by every call if the file could not be opened.
	broken   error
	readOnly bool
	queue
	outbox outbox
	room   room

	// State of garbage collection; see gc.go.
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

// Open opens the database at path with default options, and creates it if it is missing. Only one
// process can open it: a second one gets ErrUnavailable after a bounded wait. A damaged file is
// ErrDataLoss, one written by a newer version ErrFailedPrecondition; both leave the file unchanged.
// A file of an older version is migrated.
//
// The whole file is read and checked, so that damage is found now and not during a request; see
// package boltfile and seal.go.
func Open(path string) (*DB, error) { return OpenWith(path, Options{}) }

// OpenWith is like Open, with options.
func OpenWith(path string, opts Options) (*DB, error) {
	return openWith(path, opts, migrations())
}

func openWith(path string, opts Options, table []migration) (*DB, error) {
	if opts.LockWait == 0 {
		opts.LockWait = 5 * time.Second
	}
	db := newDB(path, opts)
	if err := db.prepare(opts.LockWait, table); err != nil {
		return nil, err
	}
	if err := db.open(opts.LockWait); err != nil {
		return nil, err
	}
	if err := db.initialise(table); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func newDB(path string, opts Options) *DB {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	db := &DB{path: path, now: opts.Now, readOnly: opts.ReadOnly}
	db.snapshots.reserved = make(map[uint64]struct{})
	if opts.Step == nil {
		opts.Step = func(string) {}
	}
	db.outbox.outlet, db.outbox.onError, db.outbox.step = opts.Outlet, opts.OnOutletError, opts.Step
	return db
}

// Unavailable returns a database that returns err from every transaction: for a daemon that has to
// run without its own, damaged one.
func Unavailable(err error) *DB {
	db := newDB("", Options{})
	db.broken = err
	return db
}

// Broken returns the error that every transaction of a database from Unavailable returns, and nil
// for any other.
func (db *DB) Broken() error { return db.broken }

// prepare creates the file if it is missing, and otherwise checks it.
func (db *DB) prepare(lockWait time.Duration, table []migration) error {
	_, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) && !db.readOnly {
		return db.create(lockWait, table)
	}
	if err != nil {
		return fmt.Errorf("open metadata: %w", err)
	}
	return db.check(lockWait)
}

// create writes an empty database to another path and renames it when it is complete: a file
// without the top bucket counts as damaged.
func (db *DB) create(lockWait time.Duration, table []migration) error {
	path := db.path + ".new"
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create metadata: %w", err)
	}
	fresh := newDB(path, Options{Now: db.now})
	if err := fresh.open(lockWait); err != nil {
		return err
	}
	err := fresh.transact(true, func(btx *bolt.Tx) error {
		root, err := btx.CreateBucket([]byte(rootBucket))
		if err != nil {
			return err
		}
		if _, err := root.CreateBucket([]byte(namespacesBucket)); err != nil {
			return err
		}
		if _, err := root.CreateBucket([]byte(outboxBucket)); err != nil {
			return err
		}
		return putSchema(root, latest(table))
	})
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := durable.Rename(path, db.path); err != nil {
		return fmt.Errorf("create metadata: %w", err)
	}
	return nil
}

func (db *DB) open(lockWait time.Duration) (err error) {
	defer db.shield(&err)()
	// The free list stays in the file: without it bbolt collects it at open in a goroutine of its
	// own, where a damaged page causes a panic that cannot be recovered.
	db.bolt, err = bolt.Open(db.path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		ReadOnly:        db.readOnly,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapped,
	})
	if err != nil {
		return db.openError(err)
	}
	db.bolt.AllocSize = growth
	if err := db.openRoom(); err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

func (db *DB) openError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrTimeout):
		return db.held()
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return db.damaged(err)
	default:
		return fmt.Errorf("open metadata %s: %w", db.path, err)
	}
}

func (db *DB) held() error {
	return fmt.Errorf("open metadata %s: another process holds its lock: %w", db.path, reason.DirectoryInUse)
}

// initialise migrates the layout to this version and reads what is kept in memory.
func (db *DB) initialise(table []migration) error {
	if err := db.migrate(table); err != nil {
		return err
	}
	err := db.transact(false, func(btx *bolt.Tx) error {
		root := btx.Bucket([]byte(rootBucket))
		last, err := readSequence(root)
		if err != nil {
			return db.damaged(err)
		}
		db.snapshots.last = last
		return db.outbox.load(root.Bucket([]byte(outboxBucket)))
	})
	if err != nil {
		return err
	}
	db.outbox.deliver()
	return nil
}

// Close waits for the active transactions and closes the file.
func (db *DB) Close() (err error) {
	if db.bolt == nil {
		return nil
	}
	defer db.shield(&err)()
	if err := errors.Join(db.bolt.Close(), db.closeRoom()); err != nil {
		return fmt.Errorf("close metadata %s: %w", db.path, err)
	}
	return nil
}

// View runs fn in a read-only transaction on a consistent state. It does not wait for updates. What
// fn reads may be kept after it has returned, tx may not.
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
	if db.broken != nil {
		return db.broken
	}
	defer db.shield(&err)()
	if writable {
		err = db.bolt.Update(fn)
	} else {
		err = db.bolt.View(fn)
	}
	switch {
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return fmt.Errorf("metadata %s is closed: %w", db.path, errdefs.ErrUnavailable)
	case errors.Is(err, berrors.ErrDatabaseReadOnly):
		return fmt.Errorf("write metadata %s: %w: %w", db.path, syscall.EROFS, errdefs.ErrUnavailable)
	case err != nil && writable:
		return diskError(err)
	}
	return err
}

// shield returns the function to defer around calls to bbolt: bbolt panics on damaged pages, and a
// truncated file faults in its memory map.
func (db *DB) shield(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = db.damaged(fmt.Errorf("%v", r))
		}
	}
}

// damaged returns the error of a damaged file.
func (db *DB) damaged(cause error) error {
	return fmt.Errorf("metadata %s is damaged (%w): %w", db.path, cause, reason.MetadataDamaged)
}

func uint64Of(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
