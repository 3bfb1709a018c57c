package dirs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/quota"
)

// ownName is the directory of a limited snapshot's own files.
const ownName = "fs"

// CreateLimited is Create of a directory in which the files created by fill are limited to a number of bytes.
// fill has to create the directory "fs".
func (d *Dirs) CreateLimited(ctx context.Context, id uint64, bytes int64, fill func(dir string) error) error {
	if err := snapshot.CheckLimit(bytes); err != nil {
		return err
	}
	if err := quota.Check(d.root); err != nil {
		return err
	}
	d.limits.Store(true)
	return d.Create(ctx, id, func(dir string) error {
		return quota.Within(dir, bytes, func() error { return fill(dir) })
	})
}

// SetLimit changes the limit of a directory created by CreateLimited; 0 removes it.
func (d *Dirs) SetLimit(id uint64, bytes int64) error {
	if bytes != 0 {
		if err := snapshot.CheckLimit(bytes); err != nil {
			return err
		}
	}
	if err := quota.Change(d.Path(id, ownName), bytes); err != nil {
		return fmt.Errorf("limit snapshot %d: %w", id, NotFound(err))
	}
	return nil
}

// destroy deletes a directory that was set aside, and its limit if it has one: that of "fs", or
// its own during creation. Without limits on this file system that costs nothing.
func (d *Dirs) destroy(dir string) error {
	if d.limits.Load() {
		if err := errors.Join(quota.Release(dir), quota.Release(filepath.Join(dir, ownName))); err != nil {
			return err
		}
	}
	return d.delete(dir)
}
