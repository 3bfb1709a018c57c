package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// Names of files in the root directory.
const (
	DatabaseName = "meta.db"
	UUIDName     = "uuid"
)

// openMetadata opens the database. A damaged or unreadable one does not keep the daemon from starting: tasks are
// managed without it, and requests for a record return the reason. Nothing of it is changed or moved, and nothing is
// removed for lack of a record. On a read-only file system records can be read.
func openMetadata(root string, outlet *events.Log, log *slog.Logger) (*metadata.DB, error) {
	path := filepath.Join(root, DatabaseName)
	if err := LostDatabase(root, path); err != nil {
		log.Error("starting without metadata", "error", err, "hint", Hint(err))
		return metadata.Unavailable(err), nil
	}
	opts := metadata.Options{
		Outlet:        outlet,
		OnOutletError: func(err error) { log.Error("cannot publish an event, keeping it for later", "error", err) },
	}
	db, err := metadata.OpenWith(path, opts)
	if errors.Is(err, syscall.EROFS) {
		log.Warn("starting with read-only metadata; restart cleatd once its root directory is writable", "error", err)
		opts.ReadOnly = true
		db, err = metadata.OpenWith(path, opts)
	}
	if err == nil || errdefs.IsUnavailable(err) && !diskFault(err) || errdefs.IsFailedPrecondition(err) {
		return db, err // another process holds it, or it is of a newer version
	}
	if !inUse(root) {
		return nil, err // nothing depends on this daemon yet
	}
	log.Error("starting without metadata", "error", err, "hint", Hint(err))
	return metadata.Unavailable(err), nil
}

// diskFault reports whether err is caused by a disk that cannot be written or read.
func diskFault(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// inUse reports whether a daemon has used a root directory before.
func inUse(root string) bool {
	_, err := os.Stat(filepath.Join(root, UUIDName))
	return err == nil
}

// LostDatabase returns an error if a root directory that was in use has no database any more. A new
// one would make all files in it look like left-overs.
func LostDatabase(root, path string) error {
	if !inUse(root) {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("metadata %s is missing from a directory that was in use: %w", path, reason.MetadataDamaged)
	}
	return nil
}
