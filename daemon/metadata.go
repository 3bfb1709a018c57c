package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// Names of files in the root directory.
const (
	databaseName = "meta.db"
	uuidName     = "uuid"
)

// openMetadata opens the database. A damaged one does not keep the daemon from starting: tasks are
// looked after without it, and whoever asks for a record is told what to do. Nothing of it is
// changed or moved, and nothing is removed for want of a record.
func openMetadata(root string, outlet *events.Log, log *slog.Logger) (*metadata.DB, error) {
	path := filepath.Join(root, databaseName)
	if err := lostDatabase(root, path); err != nil {
		log.Error("starting without metadata", "error", err, "hint", Hint(err))
		return metadata.Unavailable(err), nil
	}
	db, err := metadata.OpenWith(path, metadata.Options{
		Outlet:        outlet,
		OnOutletError: func(err error) { log.Error("cannot publish an event, it is kept for later", "error", err) },
	})
	if errdefs.IsDataLoss(err) {
		log.Error("starting without metadata", "error", err, "hint", Hint(err))
		return metadata.Unavailable(err), nil
	}
	return db, err
}

// lostDatabase tells that a root directory which was in use has no database any more. A new one
// would make everything there look like left-overs.
func lostDatabase(root, path string) error {
	_, err := os.Stat(filepath.Join(root, uuidName))
	if err != nil {
		return nil //nolint:nilerr // never in use
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("metadata %s is missing from a directory that was in use: %w", path, reason.MetadataDamaged)
	}
	return nil
}
