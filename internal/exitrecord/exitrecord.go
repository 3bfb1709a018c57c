// Package exitrecord reads and writes the file by which a container's exit outlives its shim: exit.json in the
// bundle.
//
// The shim writes it, durably, before it reports the container's exit; the manager that
// cleans up after a dead shim reads it. It is one JSON object:
//
//	{"id":"web","pid":4711,"status":137,"exited_at":"2026-01-02T03:04:05.000000006Z","oom":true}
//
// status is the exit code, or 128 plus the signal that killed the init; exited_at is RFC 3339 with
// nanoseconds, UTC; oom reports that the kernel killed a process of the container for lack of memory.
// Readers ignore unknown fields, and blanks after the object.
package exitrecord

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/internal/durable"
)

// FileName is the record's name in the bundle.
const FileName = "exit.json"

// Record is the exit of a container's init.
type Record struct {
	ID       string    `json:"id"`
	Pid      int       `json:"pid"`
	Status   int       `json:"status"`
	ExitedAt time.Time `json:"exited_at"`
	OOM      bool      `json:"oom,omitempty"`
}

// ErrInvalid is returned for a file that is not a record.
var ErrInvalid = errors.New("invalid exit record")

// Write adds the record to the bundle; it replaces an older one. Once it returns nil, the
// record survives power loss as far as the bundle's file system does.
func Write(bundle string, r Record) error {
	r.ExitedAt = r.ExitedAt.UTC()
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode exit of %s: %w", r.ID, err)
	}
	if err := durable.WriteFile(filepath.Join(bundle, FileName), data, 0o600); err != nil {
		if noRoom(err) && reuse(bundle, data) == nil {
			return nil
		}
		return fmt.Errorf("record exit of %s: %w", r.ID, err)
	}
	return nil
}

// spareFile is a file of the bundle whose space a record may reuse: the init's pid has no meaning once the
// init has ended.
const spareFile = "init.pid"

// noRoom reports whether err is of a disk without space for another file.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// reuse writes the record over the spare file, which needs neither a block nor an inode, and gives it the
// record's name.
func reuse(bundle string, data []byte) error {
	spare := filepath.Join(bundle, spareFile)
	f, err := os.OpenFile(spare, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// If the file was longer than the record, the rest becomes blanks.
	if info, serr := f.Stat(); serr == nil {
		for int64(len(data)) < info.Size() {
			data = append(data, ' ')
		}
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return durable.Rename(spare, filepath.Join(bundle, FileName))
}

// Read returns the bundle's record. If there is none the error is fs.ErrNotExist; a file that
// is not a record is ErrInvalid.
func Read(bundle string) (Record, error) {
	data, err := os.ReadFile(filepath.Join(bundle, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, err
	}
	if err != nil {
		return Record{}, fmt.Errorf("read exit record: %w", err)
	}
	return Parse(data)
}

// Parse decodes a record.
func Parse(data []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.ID == "" || r.ExitedAt.IsZero() || r.Status < 0 || r.Status > 255 {
		return Record{}, fmt.Errorf("%w: %s", ErrInvalid, "id, status or time missing")
	}
	return r, nil
}
