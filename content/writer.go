package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
)

// WriterOptions say what is known of a blob before it is written. The zero value is right
// when nothing is.
type WriterOptions struct {
	// Expected is the blob's digest. If it is in the store already, Writer answers already
	// exists.
	Expected digest.Digest
	// Total is the blob's size in bytes. Commit refuses another one.
	Total int64
}

// Writer writes one ingest. Its methods are safe for concurrent use. It holds the ref until
// it is closed or committed.
type Writer struct {
	store *Store
	ref   string
	dir   string

	mu        sync.Mutex
	f         *os.File // nil when closed
	hash      hash.Hash
	algorithm digest.Algorithm
	offset    int64
	meta      ingestMeta
	updatedAt time.Time
	broken    error // why the data on disk may differ from what was hashed
}

var _ io.WriteCloser = (*Writer)(nil)

// Writer starts an ingest, or takes it up again where it was left: Status tells the
// offset. Taking up costs reading what is there. The caller ends it with Commit or Close.
func (s *Store) Writer(ctx context.Context, ref string, opts WriterOptions) (*Writer, error) {
	if err := validateRef(ref); err != nil {
		return nil, err
	}
	if opts.Total < 0 {
		return nil, fmt.Errorf("ingest %q: size %d: %w", ref, opts.Total, errdefs.ErrInvalidArgument)
	}
	if opts.Expected != "" {
		_, err := s.Info(ctx, opts.Expected)
		if err == nil {
			err = fmt.Errorf("content %s: %w", opts.Expected, errdefs.ErrAlreadyExists)
		}
		if !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	if err := s.lock(ref); err != nil {
		return nil, err
	}
	w := &Writer{store: s, ref: ref, dir: s.ingestDir(ref)}
	if err := w.open(ctx, opts); err != nil {
		s.unlock(ref)
		return nil, fmt.Errorf("open ingest %q: %w", ref, err)
	}
	return w, nil
}

func (w *Writer) open(ctx context.Context, opts WriterOptions) error {
	meta, err := readMeta(w.dir)
	if err != nil {
		// New, or broken off by a crash before anything was written to it.
		if meta, err = w.create(opts); err != nil {
			return err
		}
	}
	if opts.Expected != "" && meta.Expected != "" && opts.Expected != meta.Expected {
		return fmt.Errorf("it was begun for %s, not for %s: abort it first: %w", meta.Expected, opts.Expected, errdefs.ErrFailedPrecondition)
	}
	if opts.Total != 0 && meta.Total != 0 && opts.Total != meta.Total {
		return fmt.Errorf("it was begun for %d bytes, not for %d: abort it first: %w", meta.Total, opts.Total, errdefs.ErrFailedPrecondition)
	}
	if meta.Expected == "" {
		meta.Expected = opts.Expected
	}
	if meta.Total == 0 {
		meta.Total = opts.Total
	}
	w.meta = meta
	w.algorithm = digest.Canonical
	if meta.Expected != "" {
		w.algorithm = meta.Expected.Algorithm()
	}
	w.hash = w.algorithm.Hash()
	if w.f, err = os.OpenFile(filepath.Join(w.dir, "data"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if w.offset, err = io.Copy(w.hash, until(ctx, w.f)); err != nil {
		return errors.Join(err, w.f.Close())
	}
	w.updatedAt = time.Now().UTC()
	return nil
}

// create makes the ingest's directory. Nothing is synced: after a power loss an ingest may
// be gone or hold rubbish, which the digest finds.
func (w *Writer) create(opts WriterOptions) (ingestMeta, error) {
	meta := ingestMeta{Expected: opts.Expected, Total: opts.Total, StartedAt: time.Now().UTC()}
	raw, err := json.Marshal(meta)
	if err != nil {
		return meta, err
	}
	if err := os.RemoveAll(w.dir); err != nil {
		return meta, err
	}
	err = os.Mkdir(w.dir, 0o700)
	for _, file := range [...]struct {
		name string
		data []byte
	}{{"data", nil}, {"ref", []byte(w.ref)}, {"meta", raw}} {
		if err == nil {
			err = os.WriteFile(filepath.Join(w.dir, file.name), file.data, 0o600)
		}
	}
	if err != nil {
		return meta, errors.Join(err, os.RemoveAll(w.dir))
	}
	return meta, nil
}

// Write appends p to the ingest.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return 0, err
	}
	n, err := w.f.WriteAt(p, w.offset)
	w.hash.Write(p[:n])
	w.offset += int64(n)
	w.updatedAt = time.Now().UTC()
	if err != nil {
		return n, blobError("write", w.meta.Expected, err)
	}
	return n, nil
}

func (w *Writer) usableLocked() error {
	if w.f == nil {
		return fmt.Errorf("ingest %q: its writer is closed: %w", w.ref, errdefs.ErrFailedPrecondition)
	}
	return w.broken
}

// Status says how far the ingest has come.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Status{
		Ref: w.ref, Offset: w.offset, Total: w.meta.Total, Expected: w.meta.Expected,
		StartedAt: w.meta.StartedAt, UpdatedAt: w.updatedAt,
	}
}

// Digest returns the digest of what was written so far.
func (w *Writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return digest.NewDigest(w.algorithm, w.hash)
}

// Truncate drops what was written. Only 0 is possible as size.
func (w *Writer) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if size != 0 {
		return fmt.Errorf("truncate ingest %q to %d bytes: only 0 is possible: %w", w.ref, size, errdefs.ErrInvalidArgument)
	}
	if w.f == nil {
		return w.usableLocked()
	}
	if err := w.f.Truncate(0); err != nil {
		w.broken = fmt.Errorf("truncate ingest %q: %w", w.ref, err)
		return w.broken
	}
	w.offset, w.broken = 0, nil
	w.hash.Reset()
	return nil
}

// Commit verifies the ingest, puts it on disk and makes it a blob. size 0 and an empty
// expected digest stand for those given to Writer, or unknown; a mismatch is a failed
// precondition and leaves the ingest open, to be truncated or closed. After success, and
// after already exists, the ingest is gone and the writer closed.
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
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := errors.Join(w.f.Chmod(0o444), w.f.Sync()); err != nil {
			w.broken = blobError("sync", got, err)
			return w.broken
		}
	}
	existed, err := w.store.publish(filepath.Join(w.dir, "data"), path)
	if err != nil {
		return blobError("commit", got, err)
	}
	err = w.closeLocked(removeIngest)
	if existed {
		return errors.Join(fmt.Errorf("content %s: %w", got, errdefs.ErrAlreadyExists), err)
	}
	return err
}

// verifyLocked returns the digest of the data, if it is what is expected.
func (w *Writer) verifyLocked(ctx context.Context, size int64, expected digest.Digest) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	for _, want := range [...]int64{size, w.meta.Total} {
		if want != 0 && want != w.offset {
			return "", fmt.Errorf("it has %d bytes, expected are %d: %w", w.offset, want, errdefs.ErrFailedPrecondition)
		}
	}
	got := digest.NewDigest(w.algorithm, w.hash)
	for _, want := range [...]digest.Digest{expected, w.meta.Expected} {
		if want == "" {
			continue
		}
		if _, err := w.store.path(want); err != nil {
			return "", err
		}
		if want.Algorithm() != w.algorithm {
			// Named only now: the data is read again for it.
			other := want.Algorithm().Hash()
			if _, err := io.Copy(other, until(ctx, io.NewSectionReader(w.f, 0, w.offset))); err != nil {
				return "", err
			}
			got = digest.NewDigest(want.Algorithm(), other)
		}
		if want != got {
			return "", fmt.Errorf("its digest is %s, expected is %s: %w", got, want, errdefs.ErrFailedPrecondition)
		}
	}
	return got, nil
}

// publish gives the data its name, unless a blob of that name exists.
func (s *Store) publish(data, path string) (existed bool, err error) {
	s.mu.Lock()
	_, err = os.Stat(path)
	if err == nil {
		existed = true
	} else if errors.Is(err, fs.ErrNotExist) {
		err = durable.RenameUnsynced(data, path)
	}
	s.mu.Unlock()
	if err != nil {
		return false, err
	}
	// Also when it existed: the writer who renamed may not have synced yet.
	return existed, durable.SyncDir(filepath.Dir(path))
}

// Close leaves the ingest as it is, to be taken up again. It does nothing after Commit or
// Close.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closeLocked(func(string, string) error { return nil })
}

func (w *Writer) closeLocked(then func(dir, ref string) error) error {
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	err = errors.Join(err, then(w.dir, w.ref))
	w.store.unlock(w.ref)
	if err != nil {
		return fmt.Errorf("close ingest %q: %w", w.ref, err)
	}
	return nil
}

// readerFunc makes a function a reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// until returns a reader of r that ends with the context.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
