package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// maxRef bounds the length of a ref in bytes.
const maxRef = 8192

// Status says how far an ingest has come.
type Status struct {
	Ref       string
	Offset    int64         // bytes written
	Total     int64         // bytes announced, 0 if unknown
	Expected  digest.Digest // may be empty
	StartedAt time.Time
	UpdatedAt time.Time
}

// ingestMeta is the file meta.
type ingestMeta struct {
	Expected  digest.Digest `json:"expected,omitempty"`
	Total     int64         `json:"total,omitempty"`
	StartedAt time.Time     `json:"startedAt"`
}

func (s *Store) ingestDir(ref string) string {
	return filepath.Join(s.dir, "ingest", digest.FromString(ref).Encoded())
}

func validateRef(ref string) error {
	if ref == "" || len(ref) > maxRef || strings.IndexByte(ref, 0) >= 0 {
		return fmt.Errorf("ingest ref %.64q must have 1 to %d bytes and no NUL: %w", ref, maxRef, errdefs.ErrInvalidArgument)
	}
	return nil
}

// lock takes a ref for a writer.
func (s *Store) lock(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.writing[ref]; ok {
		return fmt.Errorf("ingest %q is locked by another writer: %w", ref, errdefs.ErrUnavailable)
	}
	s.writing[ref] = struct{}{}
	return nil
}

func (s *Store) unlock(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writing, ref)
}

// Status returns how far an ingest has come, or not found.
func (s *Store) Status(ctx context.Context, ref string) (Status, error) {
	if err := ctx.Err(); err != nil {
		return Status{}, err
	}
	if err := validateRef(ref); err != nil {
		return Status{}, err
	}
	return readStatus(s.ingestDir(ref))
}

// ListStatuses returns the ingests whose ref starts with prefix, in no order that means
// anything.
func (s *Store) ListStatuses(ctx context.Context, prefix string) ([]Status, error) {
	dir := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	var out []Status
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := readStatus(filepath.Join(dir, e.Name()))
		if unreadable := new(json.SyntaxError); errdefs.IsNotFound(err) || errors.As(err, &unreadable) {
			continue // ended meanwhile, or has not got, or never got, as far as its meta
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

func readStatus(dir string) (Status, error) {
	ref, err := os.ReadFile(filepath.Join(dir, "ref"))
	if err != nil {
		return Status{}, ingestError(dir, err)
	}
	st := Status{Ref: string(ref)}
	fi, err := os.Stat(filepath.Join(dir, "data"))
	if err != nil {
		return st, ingestError(st.Ref, err)
	}
	meta, err := readMeta(dir)
	if err != nil {
		return st, ingestError(st.Ref, err)
	}
	st.Offset, st.UpdatedAt = fi.Size(), fi.ModTime().UTC()
	st.Expected, st.Total, st.StartedAt = meta.Expected, meta.Total, meta.StartedAt
	return st, nil
}

func readMeta(dir string) (ingestMeta, error) {
	var meta ingestMeta
	raw, err := os.ReadFile(filepath.Join(dir, "meta"))
	if err != nil {
		return meta, err
	}
	return meta, json.Unmarshal(raw, &meta)
}

func ingestError(ref string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ingest %q: %w", ref, errdefs.ErrNotFound)
	}
	return fmt.Errorf("ingest %q: %w", ref, err)
}

// Abort drops an ingest and what was written to it. Not found if there is none,
// unavailable while it has a writer.
func (s *Store) Abort(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := validateRef(ref); err != nil {
		return err
	}
	if err := s.lock(ref); err != nil {
		return err
	}
	defer s.unlock(ref)
	dir := s.ingestDir(ref)
	if _, err := os.Stat(dir); err != nil {
		return ingestError(ref, err)
	}
	return removeIngest(dir, ref)
}

func removeIngest(dir, ref string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove ingest %q: %w", ref, err)
	}
	return nil
}
