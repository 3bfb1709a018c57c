// Package snapshot says what a snapshot driver is: the party that keeps the directories
// behind the layers and the writable file systems of containers.
//
// A snapshot is a directory with a number. An active one can be written; committing it
// makes it a layer that others build upon; a view is read-only. What the snapshots are
// called, who owns them, what their parents and labels are is not the driver's business:
// those records live in the metadata database, in the same transaction as the containers
// that use them. A driver is told the numbers and does the directories.
//
// The order of steps that keeps the two in accord through crashes:
//
//   - create: reserve a number, Driver.Prepare, commit the record; undo by Driver.Remove.
//   - commit: Driver.Commit (the data is on disk when it returns), then commit the record.
//   - remove: delete the record, then Driver.Remove.
//   - at start: Driver.Cleanup with the numbers that have records, which removes what a
//     crash left between the steps.
//
// Package snapshottest holds the suite every driver has to pass.
package snapshot

import (
	"context"

	"github.com/cleatproject/cleat/mount"
)

// Kind is what can be done with a snapshot. The numbers are those of containerd's API and
// are stored on disk.
type Kind uint8

// The kinds.
const (
	KindUnknown   Kind = 0
	KindView      Kind = 1 // read-only, cannot be committed
	KindActive    Kind = 2 // writable
	KindCommitted Kind = 3 // complete, can be a parent
)

// String returns the word used in listings and filters.
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

// Usage is what a snapshot holds itself, without its parents.
type Usage struct {
	Size   int64 // bytes allocated on disk
	Inodes int64
}

// Layered is a Driver whose snapshots hold no more than their own files, in the form that the overlay
// file system stacks. One that is prepared without parents can therefore be filled before those are
// there, and its record be given parents when it is committed.
type Layered interface {
	Driver
	// UserXattr tells whether opaque directories carry user.overlay.opaque, for overlays that are
	// mounted with userxattr, instead of trusted.overlay.opaque.
	UserXattr() bool
}

// Driver keeps the directories of snapshots. Numbers are given by the caller, are never 0,
// and parents are listed nearest first; parents must be committed. All methods are safe
// for concurrent use on different numbers; calls on one number must be serialised by the
// caller, except Remove and Cleanup, which may meet anything.
type Driver interface {
	// Name is the name clients choose the driver by.
	Name() string
	// Prepare makes an empty snapshot of the kind KindActive or KindView. What a crashed
	// call left under the same number is replaced. After an error nothing is left.
	Prepare(ctx context.Context, id uint64, parents []uint64, kind Kind) error
	// Mounts describes how to attach the snapshot. It does no I/O on the snapshot's data, and
	// answers the same for the same arguments. ctx bounds asking, where another process
	// keeps the snapshot.
	Mounts(ctx context.Context, id uint64, parents []uint64, kind Kind) ([]mount.Mount, error)
	// Commit puts the snapshot's data on disk and measures it. It can be repeated. The
	// caller sees to it that nobody writes any more.
	Commit(ctx context.Context, id uint64) (Usage, error)
	// Usage measures the snapshot; while it is written to, roughly. Not found if it does
	// not exist.
	Usage(ctx context.Context, id uint64) (Usage, error)
	// Remove deletes the snapshot. It is idempotent: one that does not exist is no error.
	Remove(ctx context.Context, id uint64) error
	// Cleanup removes every snapshot live denies, and the remains of interrupted
	// removals. It returns the numbers removed.
	Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error)
	// Close frees what the driver holds. Snapshots and their mounts stay.
	Close() error
}
