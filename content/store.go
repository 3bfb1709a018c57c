// Package content is a store of blobs by digest, on a directory.
//
// A blob is written as an ingest, which has a free-text name, its ref, and can be left and
// taken up again at its offset, also after a restart. Committing verifies size and digest
// and makes the blob visible under its digest.
//
// Guarantees: what is visible has been verified, whole, and is on disk; a commit that
// returned nil survives power loss. Blobs never change. Whoever writes a ref has it for
// himself: a second writer gets unavailable.
//
// Caveats: one process at a time may use the directory. Nothing is deleted but by Delete
// and Abort. There are no namespaces and no labels here: cleatd keeps those in its
// metadata, and calls its ingests "namespace/ref". A blob is not verified again when it is
// read.
//
// On disk:
//
//	blobs/<algorithm>/<hex>         a blob, mode 0444
//	ingest/<sha256 of ref>/data     what was written so far
//	ingest/<sha256 of ref>/ref      the ref
//	ingest/<sha256 of ref>/meta     JSON: expected digest, total size, start
package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
)

// Store is a content store. It is safe for concurrent use.
type Store struct {
	dir string

	mu      sync.Mutex
	writing map[string]struct{} // refs that have a writer
}

// Info describes a blob.
type Info struct {
	Digest    digest.Digest
	Size      int64
	CreatedAt time.Time
}

// Open opens the store in dir and makes what is missing of it.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	s := &Store{dir: abs, writing: make(map[string]struct{})}
	dirs := []string{filepath.Join(abs, "ingest")}
	for _, a := range algorithms() {
		dirs = append(dirs, filepath.Join(abs, "blobs", a.String()))
	}
	for _, d := range dirs {
		if err := durable.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	return s, nil
}

func algorithms() []digest.Algorithm {
	return []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}
}

// path returns where the blob is or would be. Only a valid digest of a known algorithm has
// a path: it is part of a file name.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %.160q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	for _, a := range algorithms() {
		if d.Algorithm() == a {
			return filepath.Join(s.dir, "blobs", a.String(), d.Encoded()), nil
		}
	}
	return "", fmt.Errorf("digest %.160q: its algorithm is not supported: %w", d, errdefs.ErrInvalidArgument)
}

// Info returns what is known of a blob, or not found.
func (s *Store) Info(ctx context.Context, d digest.Digest) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	path, err := s.path(d)
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Info{}, blobError("stat", d, err)
	}
	return info(d, fi), nil
}

func info(d digest.Digest, fi fs.FileInfo) Info {
	return Info{Digest: d, Size: fi.Size(), CreatedAt: fi.ModTime().UTC()}
}

// blobError says what was done to which blob, with the class.
func blobError(verb string, d digest.Digest, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("content %s: %w", d, errdefs.ErrNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s content %s: %w: %w", verb, d, err, errdefs.ErrResourceExhausted)
	default:
		return fmt.Errorf("%s content %s: %w", verb, d, err)
	}
}

// Reader reads a blob. It is safe for concurrent use; the caller closes it. It stays
// readable when the blob is deleted.
type Reader struct {
	f    *os.File
	size int64
}

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// Size returns the blob's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Close ends the reading.
func (r *Reader) Close() error { return r.f.Close() }

// ReaderAt opens a blob, or answers not found.
func (s *Store) ReaderAt(ctx context.Context, d digest.Digest) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, blobError("open", d, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(blobError("stat", d, err), f.Close())
	}
	return &Reader{f: f, size: fi.Size()}, nil
}

// Walk calls fn with every blob, in no order that means anything, until fn fails. Blobs
// that come or go meanwhile may be seen or not.
func (s *Store) Walk(ctx context.Context, fn func(Info) error) error {
	for _, a := range algorithms() {
		entries, err := os.ReadDir(filepath.Join(s.dir, "blobs", a.String()))
		if err != nil {
			return fmt.Errorf("list content: %w", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			d := digest.NewDigestFromEncoded(a, e.Name())
			fi, err := e.Info()
			if err != nil || d.Validate() != nil {
				continue // deleted meanwhile, or no blob
			}
			if err := fn(info(d, fi)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes a blob for good, or answers not found.
func (s *Store) Delete(ctx context.Context, d digest.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return blobError("delete", d, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}
