// Package doctor checks the directories of a daemon, and repairs what it can: modes, snapshotters,
// the database, content and snapshots.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/metadata"
)

// Options change what Run does. The zero value only checks.
type Options struct {
	// Repair repairs what it can; no cleatd may run on the same directories.
	Repair bool
}

// Run checks what a daemon keeps on disk, reports on out, and returns the number of findings that
// remain. Without Repair it changes nothing and may run next to a daemon, whose database it then
// leaves out: the daemon has checked that at its start.
//
// Repair keeps a copy of what it replaces: a damaged database next to the new one, damaged blobs in
// ROOT/content/damaged.
func Run(ctx context.Context, cfg config.Config, opts Options, out io.Writer) (findings int, err error) {
	if err := cfg.Complete(); err != nil {
		return 0, err
	}
	if _, err := os.Stat(cfg.Root); err != nil {
		return 0, fmt.Errorf("look over %s: %w", cfg.Root, err)
	}
	d := &doctor{cfg: cfg, out: out, repair: opts.Repair, database: filepath.Join(cfg.Root, daemon.DatabaseName)}
	if opts.Repair {
		if err := os.MkdirAll(cfg.State, 0o711); err != nil {
			return 0, fmt.Errorf("repair: %w", err)
		}
		unlock, err := daemon.LockDir(ctx, cfg.State)
		if err != nil {
			return 0, fmt.Errorf("repair: %w", err)
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	err = errors.Join(d.modes(), d.drivers(ctx), d.records(ctx))
	if err == nil {
		err = d.conclude()
	}
	return d.standing, err
}

// doctor is one check of a daemon's directories.
type doctor struct {
	cfg      config.Config
	out      io.Writer
	repair   bool
	database string
	standing int
	repaired int
	writeErr error
}

// finding reports a defect: what it means, and what to do about it.
func (d *doctor) finding(what, means, do string) {
	d.standing++
	d.printf("finding: %s\n  means: %s\n     do: %s\n", what, means, do)
}

// fixed reports a defect that was repaired.
func (d *doctor) fixed(what, how string) {
	d.repaired++
	d.printf("  fixed: %s\n    how: %s\n", what, how)
}

func (d *doctor) fine(what string) { d.printf("   fine: %s\n", what) }

func (d *doctor) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, format, args...); err != nil && d.writeErr == nil {
		d.writeErr = fmt.Errorf("write report: %w", err)
	}
}

func (d *doctor) conclude() error {
	switch {
	case d.standing == 0 && d.repaired == 0:
		d.printf("nothing is wrong\n")
	case d.standing == 0:
		d.printf("%d fixed, nothing is wrong any more\n", d.repaired)
	default:
		d.printf("%d fixed, %d findings remain\n", d.repaired, d.standing)
	}
	return d.writeErr
}

const runRepair = "stop cleatd and run 'cleat doctor --repair'"

// records checks the database, and the content and snapshots that it refers to.
func (d *doctor) records(ctx context.Context) error {
	whole, err := d.checkDatabase()
	if err != nil {
		return err
	}
	if !whole && d.repair {
		if err := d.renewDatabase(ctx); err != nil {
			return err
		}
		whole = true
	}
	if !whole {
		return nil
	}
	db, err := metadata.OpenWith(d.database, metadata.Options{ReadOnly: !d.repair, LockWait: time.Second})
	if err != nil {
		return err
	}
	store, err := d.openContent()
	if err != nil {
		return errors.Join(err, db.Close())
	}
	if store != nil {
		err = d.checkContent(ctx, db, store)
	}
	return errors.Join(err, d.checkSnapshots(ctx, db), db.Close())
}

// openContent opens the store if there is one; opening would create it. Without repair nothing in it is
// touched.
func (d *doctor) openContent() (*content.Store, error) {
	dir := filepath.Join(d.cfg.Root, "content")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no store, no error
	}
	return content.OpenWith(dir, content.Options{ReadOnly: !d.repair})
}

// checkDatabase reports whether the database can be used.
func (d *doctor) checkDatabase() (whole bool, err error) {
	if err := daemon.LostDatabase(d.cfg.Root, d.database); err != nil {
		if !d.repair {
			d.finding("the database "+d.database+" is missing", "no container, image or snapshot is on record; running containers are adopted all the same", "put a backup in its place, or "+runRepair)
		}
		return false, nil
	}
	findings, err := metadata.Inspect(d.database)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fine("no database yet")
		return false, nil
	case errdefs.IsUnavailable(err):
		d.fine("database: a running cleatd holds it and checked it at its start; stop it to check again")
		return false, nil
	case err != nil:
		return false, err
	case len(findings) == 0:
		d.fine("database " + d.database)
		return d.current()
	}
	if !d.repair {
		for _, f := range findings {
			d.finding("database: "+f.String(), "cleatd starts without its records: tasks continue, everything else is refused", runRepair+", or put a backup in the place of "+d.database)
		}
	}
	return false, nil
}

// current reports whether the layout is this version's; with repair, the database is brought to it.
func (d *doctor) current() (bool, error) {
	db, err := metadata.OpenWith(d.database, metadata.Options{ReadOnly: !d.repair, LockWait: time.Second})
	if errdefs.IsFailedPrecondition(err) {
		d.fine("database: " + err.Error())
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, db.Close()
}

// snapshotNumbers returns the numbers of the directories in a driver's root.
func snapshotNumbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []uint64
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// snapshotters returns the names of the drivers that have a directory.
func (d *doctor) snapshotters() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Root, "snapshots"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshotters: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
