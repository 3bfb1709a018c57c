package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cleatproject/cleat/internal/durable"
)

// Remove implements snapshot.Driver: the directory is renamed aside first, so that no half
// of it is ever found under its number.
func (d *Driver) Remove(ctx context.Context, id uint64) error {
	aside := d.asidePath(id)
	switch err := durable.RenameUnsynced(d.dir(id), aside); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("remove snapshot %d: %w", id, err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove snapshot %d: %w", id, err)
	}
	return ctx.Err()
}

// Cleanup implements snapshot.Driver.
func (d *Driver) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
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
		if d.staleAside(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(d.root, e.Name())))
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

// staleAside tells whether name was put aside by another driver than this one, which is
// therefore gone; what this one put aside is in the hands of a running call.
func (d *Driver) staleAside(name string) bool {
	return strings.HasPrefix(name, asidePrefix) && !strings.HasPrefix(name, asidePrefix+d.nonce+"-")
}
