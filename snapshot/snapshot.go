// Package snapshot defines the snapshot driver, which manages the directories
// of the layers and the writable file systems of containers.
//
// A snapshot is a directory with a number. An active one can be written; committing it
// makes it a layer that can be a parent of others; a view is read-only. Names, owners,
// parents and labels of snapshots are not known to the driver:
// those records are in the metadata database, in the same transaction as the containers
// that use them. A driver gets the numbers and manages the directories.
//
// The order of steps that keeps the two consistent through crashes:
//
//   - create: reserve a number, Driver.Prepare, commit the record; undo by Driver.Remove.
//   - commit: Driver.Commit (the data is on disk when it returns), then commit the record.
//   - remove: delete the record, then Driver.Remove.
//   - at start: Driver.Cleanup with the numbers that have records, which removes the
//     remains of interrupted steps.
//
// Package snapshottest has the conformance suite of drivers.
package snapshot

import (
	"context"

	"github.com/cleatproject/cleat/mount"
)

// Kind is the kind of a snapshot. The numbers are those of containerd's API and
// are stored on disk.
type Kind uint8

// The kinds.
const (
	KindUnknown   Kind = 0
	KindView      Kind = 1 // read-only, cannot be committed
	KindActive    Kind = 2 // writable
	KindCommitted Kind = 3 // complete, can be a parent
)

// String returns the name used in listings and filters.
func (k Kind) String() string {
	switch k {
	case KindView:
		return "view"
	case KindActive:
		return "active"
	case KindCommitted:
		return "committed"
	default:
		return "unknown"
	}
}

// Usage is the storage of a snapshot itself, without its parents.
type Usage struct {
	Size   int64 // bytes allocated on disk
	Inodes int64
}

// Layered is a Driver whose snapshots contain only their own files, in the form that the overlay
// file system stacks. One that is prepared without parents can therefore be filled before those
// exist, and its record can get parents when it is committed.
type Layered interface {
	Driver
	// UserXattr reports whether opaque directories have user.overlay.opaque, for overlays that are
	// mounted with userxattr, instead of trusted.overlay.opaque.
	UserXattr() bool
}

// Driver manages the directories of snapshots. Numbers are chosen by the caller, are never 0,
// and parents are listed nearest first; parents must be committed. All methods are safe
// for concurrent use on different numbers; calls on one number must be serialised by the
// caller, except Remove and Cleanup, which are safe with all calls.
type Driver interface {
	// Name returns the name by which clients select the driver.
	Name() string
	// Prepare creates an empty snapshot of the kind KindActive or KindView. The remains of a crashed
	// call for the same number are replaced. After an error nothing is left.
	Prepare(ctx context.Context, id uint64, parents []uint64, kind Kind) error
	// Mounts returns the mounts of the snapshot. It does no I/O on the snapshot's data, and
	// returns the same for the same arguments. ctx bounds the call if another process
	// manages the snapshot.
	Mounts(ctx context.Context, id uint64, parents []uint64, kind Kind) ([]mount.Mount, error)
	// Commit syncs the snapshot's data and measures it. It can be repeated. The
	// caller ensures that there are no more writes.
	Commit(ctx context.Context, id uint64) (Usage, error)
	// Usage measures the snapshot; the result is approximate during writes. Not found if it does
	// not exist.
	Usage(ctx context.Context, id uint64) (Usage, error)
	// Remove deletes the snapshot. It is idempotent: a missing one is not an error.
	Remove(ctx context.Context, id uint64) error
	// Cleanup removes snapshots for which live returns false, and the remains of interrupted
	// removals. It returns the numbers removed.
	Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error)
	// Close releases the driver's resources. Snapshots and their mounts are kept.
	Close() error
}
