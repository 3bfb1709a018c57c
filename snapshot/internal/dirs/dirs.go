// Package dirs manages the numbered directories of a snapshot driver: ROOT/<number> for each
// snapshot, which appears complete or not at all and vanishes at once. A directory that has not yet got
// its name, or has lost it, is called ".rm-…"; Cleanup removes those that a crash leaves.
package dirs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/snapshot/internal/quota"
)

// asidePrefix starts the names of directories that are being created or removed; it is followed by the
// nonce of their Dirs.
const asidePrefix = ".rm-"

// Dirs are the directories of one driver. It is safe for concurrent use, on one number within the
// rules of snapshot.Driver.
type Dirs struct {
	root   string
	nonce  string
	aside  atomic.Uint64
	delete func(dir string) error
	// limits reports that the file system supports limits, and that directories may have one.
	limits atomic.Bool
}

// Open opens root, which it creates if it is missing. remove deletes a directory and its
// content; nil means os.RemoveAll.
func Open(root string, remove func(dir string) error) (*Dirs, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(abs, 0o700); err != nil {
		return nil, err
	}
	if remove == nil {
		remove = os.RemoveAll
	}
	d := &Dirs{root: abs, nonce: rand.Text(), delete: remove}
	d.limits.Store(quota.Check(abs) == nil)
	return d, nil
}

// Root returns the absolute path of the root.
func (d *Dirs) Root() string { return d.root }

// Path returns the path of the snapshot of a number, present or not, and of name within it.
func (d *Dirs) Path(id uint64, name ...string) string {
	return filepath.Join(append([]string{d.root, strconv.FormatUint(id, 10)}, name...)...)
}

// Temp creates a directory for a probe; Cleanup removes it after a crash.
func (d *Dirs) Temp() (string, error) { return os.MkdirTemp(d.root, asidePrefix+"try-") }

func (d *Dirs) asidePath(id uint64) string {
	return filepath.Join(d.root, fmt.Sprintf("%s%s-%d-%d", asidePrefix, d.nonce, id, d.aside.Add(1)))
}

// Create creates the directory of a number, replacing the remains of a crashed call. fill
// gets the directory, mode 0700, before it has its name. The name is durable when Create returns;
// after an error nothing is left.
func (d *Dirs) Create(ctx context.Context, id uint64, fill func(dir string) error) error {
	if err := d.Remove(ctx, id); err != nil {
		return err
	}
	tmp := d.asidePath(id)
	err := os.Mkdir(tmp, 0o700)
	if err == nil {
		err = fill(tmp)
	}
	if err == nil {
		err = durable.RenameUnsynced(tmp, d.Path(id))
	}
	if err == nil {
		// The record of the snapshot is committed next, and must not outlive the directory.
		err = durable.SyncDir(d.root)
	}
	if err != nil {
		return errors.Join(err, d.destroy(tmp))
	}
	return nil
}

// Remove deletes the directory of a number; it is renamed first, so that a partly deleted one is never
// found under its number. A missing one is not an error.
func (d *Dirs) Remove(ctx context.Context, id uint64) error {
	aside := d.asidePath(id)
	switch err := durable.RenameUnsynced(d.Path(id), aside); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("remove snapshot %d: %w", id, err)
	}
	if err := d.destroy(aside); err != nil {
		return fmt.Errorf("remove snapshot %d: %w", id, err)
	}
	return ctx.Err()
}

// Cleanup removes directories for whose number live returns false, and those set aside by earlier processes.
// It returns the numbers removed.
func (d *Dirs) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, fmt.Errorf("clean up snapshots: %w", err)
	}
	var removed []uint64
	var errs []error
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return removed, errors.Join(append(errs, err)...)
		}
		if d.stale(e.Name()) {
			errs = append(errs, d.destroy(filepath.Join(d.root, e.Name())))
			continue
		}
		id, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || live(id) {
			continue
		}
		if err := d.Remove(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, id)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("clean up snapshots: %w", err)
	}
	return removed, nil
}

// IDs returns the numbers with a directory.
func (d *Dirs) IDs() ([]uint64, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []uint64
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// stale reports whether name was set aside by another Dirs than this one, whose process therefore ended;
// those set aside by this one belong to a running call.
func (d *Dirs) stale(name string) bool {
	return strings.HasPrefix(name, asidePrefix) && !strings.HasPrefix(name, asidePrefix+d.nonce+"-")
}
