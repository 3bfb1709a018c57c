package metadata

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Room for removals on a full disk.
//
// bbolt copies the pages that it changes, also those of a removal, so a file without a free page
// could not shrink in any way. The file is therefore kept larger than its pages, with
// blocks that the file system has allocated. When the disk has none left for it, updates that add
// records are refused while there is still room, and those that remove records continue: what they
// copy becomes free again with the next update.

const (
	// reserve is the room in bytes that updates that add records leave.
	reserve = 1 << 20
	// smallGrowth is the number of bytes that an update may add without counting as one that adds
	// records:
	// a label, a status.
	smallGrowth = 1 << 10
)

// room is the state of the reserve. The leader of the queue owns it.
type room struct {
	file      *os.File // for allocation only; nil if the file system cannot
	pageSize  int64
	allocated int64 // bytes of the file that have blocks
	// cause is the reason why the reserve cannot be allocated; nil if it is allocated.
	cause error
}

// openRoom opens the file for allocation and determines its allocated size.
func (db *DB) openRoom() error {
	if db.readOnly {
		return nil
	}
	f, err := os.OpenFile(db.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open metadata: %w", err)
	}
	db.room.file, db.room.pageSize = f, int64(db.bolt.Info().PageSize)
	return nil
}

func (db *DB) closeRoom() error {
	if db.room.file == nil {
		return nil
	}
	err := db.room.file.Close()
	db.room.file = nil
	return err
}

// free returns the allocated bytes that no page uses, as seen by a transaction.
func (r *room) free(db *bolt.DB, tx *bolt.Tx) int64 {
	return r.allocated - tx.Size() + int64(db.Stats().FreePageN)*r.pageSize
}

// ensure allocates the reserve for a transaction if necessary. A full disk is not an error: see
// refuse.
func (r *room) ensure(db *bolt.DB, tx *bolt.Tx) {
	if r.file == nil || r.cause == nil && r.free(db, tx) >= reserve {
		return
	}
	want := max(tx.Size()+2*reserve, r.allocated)
	err := unix.Fallocate(int(r.file.Fd()), 0, 0, want)
	switch {
	case err == nil:
		r.allocated, r.cause = want, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		r.file, r.cause = nil, errors.Join(r.file.Close()) // not supported by the file system
	case r.allocated == 0: // since the file was opened
		r.allocated, r.cause = r.blocks(), err
	default:
		r.cause = err
	}
}

// blocks returns how many bytes of the file have blocks, at most.
func (r *room) blocks() int64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.file.Fd()), &st); err != nil {
		return 0
	}
	return min(st.Size, st.Blocks*512)
}

// refuse returns an error if tx adds records although the reserve cannot be allocated.
func (r *room) refuse(db *bolt.DB, tx *Tx) error {
	if r.cause == nil || tx.deleted || tx.grown <= smallGrowth || r.free(db, tx.bolt) >= reserve {
		return nil
	}
	return fmt.Errorf("write metadata: remaining space is reserved for removals: %w: %w", r.cause, errdefs.ErrResourceExhausted)
}

// diskError sets the class of disk errors.
func diskError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("write metadata: %w: %w", err, errdefs.ErrResourceExhausted)
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("write metadata: %w: %w", err, errdefs.ErrUnavailable)
	}
	return err
}
