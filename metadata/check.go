package metadata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/filelock"
	"github.com/cleatproject/cleat/metadata/boltfile"
	"github.com/cleatproject/cleat/proto/reason"
)

// check reads the whole file under its lock and returns the first problem with its pages, its
// layout and, from version 2 on, the seals of its records.
func (db *DB) check(lockWait time.Duration) (err error) {
	f, err := os.Open(db.path)
	if err != nil {
		return fmt.Errorf("open metadata: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := lockShared(f, lockWait); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return db.held()
		}
		return fmt.Errorf("lock metadata %s: %w", db.path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open metadata: %w", err)
	}
	var in inspector
	err = boltfile.Check(f, info.Size(), boltfile.Visitor{Bucket: in.bucket, Record: in.record})
	if err == nil {
		err = in.verdict()
	}
	if err != nil {
		return db.damaged(err)
	}
	return nil
}

// lockShared waits for the file's lock, which bbolt holds while it has the file open. The lock ends
// with the descriptor. A lock that stays held is EWOULDBLOCK.
//
//nolint:contextcheck // the wait is the limit
func lockShared(f *os.File, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	return filelock.Wait(ctx, f, unix.LOCK_SH)
}

// inspector checks what a walk over the file finds.
type inspector struct {
	rooted  bool
	foreign string // a bucket other than ours
	schema  uint64
	broken  error // the first record whose seal is invalid
}

func (in *inspector) bucket(path []string) {
	switch {
	case len(path) == 1 && path[0] == rootBucket:
		in.rooted = true
	case len(path) == 1:
		in.foreign = path[0]
	}
}

func (in *inspector) record(path []string, key, value []byte) {
	if len(path) == 0 || path[0] != rootBucket {
		return
	}
	if len(path) == 1 && string(key) == schemaKey {
		in.schema = uint64Of(value)
		return
	}
	if in.broken != nil {
		return
	}
	if _, err := scopeOf(path[1:]...).open(string(key), value); err != nil {
		in.broken = fmt.Errorf("%s: %w", place(path, key), err)
	}
}

// place formats a record's place for messages.
func place(path []string, key []byte) string {
	text := ""
	for _, p := range path[1:] {
		text += p + "/"
	}
	return fmt.Sprintf("%.128q", text+string(key))
}

// verdict returns the error that the walk has found in the file.
func (in *inspector) verdict() error {
	switch {
	case !in.rooted:
		return errors.New("no bucket " + rootBucket)
	case in.foreign != "":
		return fmt.Errorf("foreign bucket %.64q", in.foreign)
	case in.schema == 0:
		return errors.New("schema version missing")
	case in.schema >= sealedSchema && in.schema <= schemaVersion:
		return in.broken
	}
	return nil
}

// newer returns the error for a file of a later version.
func (db *DB) newer(got uint64, known uint64) error {
	return fmt.Errorf("open metadata %s: written by a newer cleatd (schema %d, the latest known here is %d): %w",
		db.path, got, known, reason.MetadataNewer)
}
