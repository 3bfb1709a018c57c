package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cleatproject/cleat/internal/durable"
)

// recover prepares every ingest for being resumed in this boot, and removes directories that
// are not ingests. It runs before the first request: no writer is open.
func (s *Store) recover() error {
	entries, err := os.ReadDir(s.ingests())
	if err != nil {
		return fmt.Errorf("list ingests: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(s.ingests(), e.Name())
		// If the disk cannot be written, it is recovered when it is opened (Writer.open).
		if err := s.recoverIngest(dir); err != nil && !takesNoWrites(err) {
			return fmt.Errorf("recover ingest %s: %w", dir, err)
		}
	}
	return nil
}

// takesNoWrites reports whether err is of a disk that is full, read-only or broken.
func takesNoWrites(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// recoveredMeta returns the meta file of an ingest that existed at open, recovered if it could not be then.
func (s *Store) recoveredMeta(dir string) (ingestMeta, error) {
	meta, err := s.readMeta(dir)
	if err != nil || s.boot == "" || meta.Boot == s.boot {
		return meta, err
	}
	if err := s.recoverIngest(dir); err != nil {
		return meta, err
	}
	return s.readMeta(dir)
}

func (s *Store) recoverIngest(dir string) error {
	meta, err := s.readMeta(dir)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, dataFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return s.disk.RemoveTree(dir, dataFile) // interrupted in its creation or removal
	}
	if err != nil {
		return err
	}
	if err := s.removeTemps(dir); err != nil {
		return err
	}
	if s.boot != "" && meta.Boot == s.boot {
		return nil
	}
	return s.rewind(dir, meta)
}

// removeTemps removes files whose writing was interrupted.
func (s *Store) removeTemps(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			if err := s.disk.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewind truncates an ingest to the data that is known to be on disk after the machine stopped. The
// order matters: as long as meta names the old boot, all of it is done again.
func (s *Store) rewind(dir string, meta ingestMeta) (err error) {
	f, err := s.disk.OpenFile(filepath.Join(dir, dataFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	c, ok, err := s.loadCheckpoint(dir, syncedFile, f, fi.Size())
	if err != nil {
		return err
	}
	stale := []string{stateFile}
	if !ok {
		stale, c.Offset = append(stale, syncedFile), 0
	}
	for _, name := range stale {
		if err := s.disk.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Durably before any byte is overwritten: otherwise the next power loss might bring it back.
	if err := s.disk.SyncDir(dir); err != nil {
		return err
	}
	if c.Offset != fi.Size() {
		if err := f.Truncate(c.Offset); err != nil {
			return err
		}
	}
	meta.Boot = s.boot
	return s.writeMeta(dir, meta)
}

// writeMeta replaces the meta file of an ingest, durably.
func (s *Store) writeMeta(dir string, meta ingestMeta) error {
	raw, err := encodeMeta(meta)
	if err != nil {
		return err
	}
	return s.disk.WriteFile(filepath.Join(dir, metaFile), raw, 0o600)
}
