package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// Sync syncs the data written so far, so that a following Commit is short: for a
// caller who holds a lock during Commit. It verifies and publishes nothing.
func (w *Writer) Sync(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.usableLocked(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		w.broken = ingestError("sync", w.ref, w.rollBackLocked(err))
		return w.broken
	}
	return nil
}

// Commit verifies the ingest, syncs it and makes it a blob. size and expected, if not 0 and
// empty, replace those given to Writer; a mismatch is a failed
// precondition and leaves the ingest open, to be truncated or closed. After success, and
// after already exists, the ingest is removed and the writer closed. After another error the
// verified blob may have become visible nevertheless, if only the last sync failed.
func (w *Writer) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return err
	}
	got, err := w.verifyLocked(ctx, size, expected)
	if err != nil {
		return fmt.Errorf("commit ingest %q: %w", w.ref, err)
	}
	path, err := w.store.path(got)
	if err != nil {
		return err
	}
	if !w.store.has(path, w.offset) && !w.named {
		if err := w.f.Chmod(0o444); err != nil {
			return blobError("commit", got, err)
		}
		if err := w.f.Sync(); err != nil {
			w.broken = blobError("sync", got, w.rollBackLocked(err))
			return w.broken
		}
	}
	existed, err := w.publishLocked(path)
	if err != nil {
		return blobError("commit", got, err)
	}
	w.tail.update(func() { w.tail.end = io.EOF })
	err = w.closeLocked(w.store.removeIngest(w.dir, w.ref))
	if existed {
		return errors.Join(fmt.Errorf("content %s: %w", got, errdefs.ErrAlreadyExists), err)
	}
	return err
}

// verifyLocked returns the digest of the data, if it matches the expected one.
func (w *Writer) verifyLocked(ctx context.Context, size int64, expected digest.Digest) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if size == 0 {
		size = w.meta.Total
	}
	if size != 0 && size != w.offset {
		return "", fmt.Errorf("got %d bytes, expected %d: %w", w.offset, size, errdefs.ErrFailedPrecondition)
	}
	// Only this writer changes the file; if the size differs, the hash is not of this data.
	if fi, err := w.f.Stat(); err != nil || fi.Size() != w.offset {
		return "", errors.Join(fmt.Errorf("file does not have the %d bytes written: %w", w.offset, errdefs.ErrDataLoss), err)
	}
	if expected == "" {
		expected = w.meta.Expected
	}
	if expected == "" {
		return digest.NewDigest(w.algorithm, w.hash.wait()), nil
	}
	if err := validateDigest(expected); err != nil {
		return "", err
	}
	if expected.Algorithm() != w.algorithm {
		// First stated here: the data is read again for it, once.
		other := expected.Algorithm().Hash()
		if _, err := w.store.copyTo(other, until(ctx, io.NewSectionReader(w.f, 0, w.offset))); err != nil {
			return "", err
		}
		w.algorithm, w.hash.hash = expected.Algorithm(), other
	}
	if got := digest.NewDigest(w.algorithm, w.hash.wait()); got != expected {
		return "", fmt.Errorf("got digest %s, expected %s: %w", got, expected, errdefs.ErrFailedPrecondition)
	}
	return expected, nil
}

// has reports whether a blob of the required size is present. One of another size is
// damaged: the verified data replaces it.
func (s *Store) has(path string, size int64) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Size() == size
}

// publishLocked gives the data its name, unless a blob of that name exists.
func (w *Writer) publishLocked(path string) (existed bool, err error) {
	s := w.store
	if !w.named {
		s.mu.Lock()
		existed = s.has(path, w.offset)
		if !existed {
			err = s.disk.RenameUnsynced(filepath.Join(w.dir, dataFile), path)
		}
		s.mu.Unlock()
		if errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("data of the ingest is missing: %v: %w", err, errdefs.ErrDataLoss) //nolint:errorlint // not found would blame the blob
		}
		if err != nil {
			return false, err
		}
		w.named = !existed
	}
	// Also if it existed: the writer that renamed it may not have synced yet.
	return existed, s.disk.SyncDir(filepath.Dir(path))
}
