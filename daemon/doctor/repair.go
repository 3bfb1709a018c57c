package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/metadata"
)

// renewDatabase replaces a database that is damaged or missing. One of the two is in place at every
// moment.
func (d *doctor) renewDatabase(ctx context.Context) error {
	fresh := d.database + ".repaired"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repair database: %w", err)
	}
	kept, err := d.salvage(fresh)
	if err != nil {
		return err
	}
	if err := d.adoptDirectories(ctx, fresh); err != nil {
		return err
	}
	if kept != "" {
		if err := os.Link(d.database, kept); err != nil {
			return fmt.Errorf("keep damaged database: %w", err)
		}
	}
	if err := durable.Rename(fresh, d.database); err != nil {
		return fmt.Errorf("repair database: %w", err)
	}
	return nil
}

// salvage creates the new database at fresh from what can be read of the old one, and returns where
// to keep the old one; "" if there is none.
func (d *doctor) salvage(fresh string) (kept string, err error) {
	if _, err := os.Stat(d.database); errors.Is(err, fs.ErrNotExist) {
		db, err := metadata.Open(fresh)
		if err != nil {
			return "", err
		}
		d.fixed("the database was missing", "made a new one without records")
		return "", db.Close()
	}
	out, err := metadata.Salvage(d.database, fresh)
	if err != nil {
		return "", err
	}
	kept = d.database + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	d.fixed("the database was damaged", fmt.Sprintf("copied the %d records that can be read; the damaged file is kept as %s", out.Kept, kept))
	for _, f := range out.Lost {
		d.printf("   lost: %s\n", f)
	}
	return kept, nil
}

// adoptDirectories creates records for directories of snapshots without one: the next start would
// remove the directories, and a container may run on one.
func (d *doctor) adoptDirectories(ctx context.Context, path string) error {
	db, err := metadata.Open(path)
	if err != nil {
		return err
	}
	names, err := d.snapshotters()
	for _, name := range names {
		ids, lerr := snapshotNumbers(filepath.Join(d.cfg.Root, "snapshots", name))
		if lerr != nil {
			err = errors.Join(err, lerr)
			continue
		}
		var adopted []uint64
		err = errors.Join(err, db.Update(ctx, func(tx *metadata.Tx) (err error) {
			adopted, err = tx.AdoptSnapshots(name, ids)
			return err
		}))
		if len(adopted) > 0 {
			d.fixed(fmt.Sprintf("%d directories of snapshotter %s had lost their record", len(adopted), name),
				fmt.Sprintf("they are on record in namespace %s as lost-<number>; remove there what nothing runs on", metadata.RecoveredNamespace))
		}
	}
	return errors.Join(err, db.Close())
}
