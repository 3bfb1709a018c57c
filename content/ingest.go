package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// maxRef bounds the length of a ref in bytes.
const maxRef = 8192

// The files of an ingest, except its checkpoints.
const (
	dataFile = "data" // without it, the directory is not an ingest
	metaFile = "meta"
)

// Status describes an ingest and its progress.
type Status struct {
	Ref       string
	Offset    int64         // bytes written
	Total     int64         // bytes announced, 0 if unknown
	Expected  digest.Digest // may be empty
	StartedAt time.Time
	UpdatedAt time.Time
}

func (s *Store) ingests() string { return filepath.Join(s.dir, "ingest") }

func (s *Store) ingestDir(ref string) string {
	return filepath.Join(s.ingests(), digest.FromString(ref).Encoded())
}

func validateRef(ref string) error {
	if ref == "" || len(ref) > maxRef || strings.IndexByte(ref, 0) >= 0 || !utf8.ValidString(ref) {
		return fmt.Errorf("ingest ref %.64q must be UTF-8 text of 1 to %d bytes without a NUL: %w", ref, maxRef, errdefs.ErrInvalidArgument)
	}
	return nil
}

// lock reserves a ref for a writer that is being opened, or for its removal.
func (s *Store) lock(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.writing[ref]; ok {
		return fmt.Errorf("ingest %q is locked by another writer: %w", ref, errdefs.ErrUnavailable)
	}
	s.writing[ref] = nil
	return nil
}

func (s *Store) unlock(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writing, ref)
}

// opened sets the writer that holds a ref.
func (s *Store) opened(ref string, w *Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing[ref] = w
}

// Status returns the progress of an ingest, or not found.
func (s *Store) Status(ctx context.Context, ref string) (Status, error) {
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	if err := validateRef(ref); err != nil {
		return Status{}, err
	}
	return s.readStatus(ref, s.ingestDir(ref))
}

// ListStatuses returns the ingests whose ref starts with prefix, in no particular
// order.
func (s *Store) ListStatuses(ctx context.Context, prefix string) ([]Status, error) {
	entries, err := os.ReadDir(s.ingests())
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	var out []Status
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := s.readStatus(e.Name(), filepath.Join(s.ingests(), e.Name()))
		if errdefs.IsNotFound(err) {
			continue // ended concurrently
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(st.Ref, prefix) {
			out = append(out, st)
		}
	}
	return out, nil
}

// readStatus reads an ingest's directory. name is for errors.
func (s *Store) readStatus(name, dir string) (Status, error) {
	fi, err := os.Stat(filepath.Join(dir, dataFile))
	if err != nil {
		return Status{}, ingestError("read", name, err)
	}
	meta, err := s.readMeta(dir)
	if err != nil {
		return Status{}, ingestError("read", name, err)
	}
	return Status{
		Ref: meta.Ref, Offset: fi.Size(), Total: meta.Total, Expected: meta.Expected,
		StartedAt: meta.StartedAt, UpdatedAt: writtenAt(fi, meta),
	}, nil
}

// writtenAt returns the time of the last write to an ingest. The kernel's time stamps are
// coarse by some milliseconds.
func writtenAt(fi fs.FileInfo, meta ingestMeta) time.Time {
	if t := fi.ModTime().UTC(); t.After(meta.StartedAt) {
		return t
	}
	return meta.StartedAt
}

// readMeta reads the meta file of an ingest. An invalid one is not found, as if
// the ingest did not exist.
func (s *Store) readMeta(dir string) (ingestMeta, error) {
	raw, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return ingestMeta{}, err
	}
	meta, err := parseMeta(raw)
	if err == nil && s.ingestDir(meta.Ref) != dir {
		err = fmt.Errorf("belongs to the ingest %.64q", meta.Ref)
	}
	if err != nil {
		return ingestMeta{}, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return meta, nil
}

// ingestError adds action, ingest and class to an error.
func ingestError(verb, ref string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ingest %q: %w", ref, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s ingest %q: %w", verb, ref, diskError(err))
}

// Abort deletes an ingest and its data, or returns not found. Its writer, if it has one, is
// ended: later calls on that fail with the class aborted. Unavailable while a
// writer is being opened.
func (s *Store) Abort(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := validateRef(ref); err != nil {
		return err
	}
	s.mu.Lock()
	w := s.writing[ref]
	s.mu.Unlock()
	if w != nil {
		if ended, err := w.abort(); ended {
			return err
		}
	}
	return s.drop(ref, func(Status) bool { return true })
}

// drop removes an ingest without a writer, if meant returns true.
func (s *Store) drop(ref string, meant func(Status) bool) error {
	if err := s.lock(ref); err != nil {
		return err
	}
	defer s.unlock(ref)
	dir := s.ingestDir(ref)
	st, err := s.readStatus(ref, dir)
	if err != nil {
		return err
	}
	if !meant(st) {
		return fmt.Errorf("ingest %q was written to concurrently: %w", ref, errdefs.ErrUnavailable)
	}
	return s.removeIngest(dir, ref)
}

func (s *Store) removeIngest(dir, ref string) error {
	if err := s.disk.RemoveTree(dir, dataFile); err != nil {
		return fmt.Errorf("remove ingest %q: %w", ref, err)
	}
	return nil
}

// AbortStale deletes the ingests that were last written to before a time, have no writer,
// and for which meant returns true, and returns their status. A nil meant selects all. An error
// for one does not keep it from the others.
func (s *Store) AbortStale(ctx context.Context, before time.Time, meant func(Status) bool) ([]Status, error) {
	list, err := s.ListStatuses(ctx, "")
	if err != nil {
		return nil, err
	}
	stale := func(st Status) bool { return st.UpdatedAt.Before(before) && (meant == nil || meant(st)) }
	var dropped []Status
	var errs error
	for _, st := range list {
		if err := ctx.Err(); err != nil {
			return dropped, errors.Join(errs, err)
		}
		if !stale(st) {
			continue
		}
		err := s.drop(st.Ref, stale)
		switch {
		case err == nil:
			dropped = append(dropped, st)
		case !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err): // removed, or in use again
			errs = errors.Join(errs, err)
		}
	}
	return dropped, errs
}
