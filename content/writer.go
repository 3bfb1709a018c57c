package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
)

// pace holds the number of bytes between periodic actions of a writer.
type pace struct {
	writeBack  int64 // starts write-back by the kernel
	checkpoint int64 // saves the running digest for this boot
	sync       int64 // syncs data and running digest
}

func defaultPace() pace { return pace{writeBack: 8 << 20, checkpoint: 64 << 20, sync: 256 << 20} }

// WriterOptions state what is known of a blob before it is written. The zero value is right
// if nothing is.
type WriterOptions struct {
	// Expected is the blob's digest. If that blob is present, Writer returns already
	// exists.
	Expected digest.Digest
	// Total is the blob's size in bytes. Commit refuses another one.
	Total int64
	// Prove opens the ingest also if the expected blob is present: for a caller
	// that requires each of several users of a store to prove that they have the bytes.
	Prove bool
}

// Writer writes one ingest. Its methods are safe for concurrent use. It holds the ref until
// it is closed or committed.
type Writer struct {
	store *Store
	ref   string
	dir   string

	mu        sync.Mutex
	f         durable.File // nil when closed
	hash      hasher
	algorithm digest.Algorithm
	offset    int64
	meta      ingestMeta
	updatedAt time.Time
	broken    error // why the data on disk may differ from the hashed data
	dropped   bool  // the ingest was rolled back for that, and has to be opened again
	ended     error // the reason for its end, if not Close or Commit
	named     bool  // the data is a blob

	flushed, saved, synced int64 // offsets of the last action of each kind
	tail                   *tail // nil without followers
}

var (
	_ io.WriteCloser = (*Writer)(nil)
	_ io.ReaderFrom  = (*Writer)(nil)
)

// copyTo copies with a buffer of the store.
func (s *Store) copyTo(w io.Writer, r io.Reader) (int64, error) {
	buf := s.bufs.Get().(*[]byte)
	defer s.bufs.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, r, *buf)
}

// Write appends p to the ingest. After a failure the writer can be truncated or closed.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n, err := w.appendLocked(p[done:min(len(p), done+bufferSize)])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// appendLocked writes at most one buffer's worth of bytes.
func (w *Writer) appendLocked(p []byte) (int, error) {
	if len(p) < behindFrom {
		n, err := w.f.WriteAt(p, w.offset)
		w.hash.wait().Write(p[:n])
		return n, w.wroteLocked(n, err)
	}
	b := w.hash.buffer()
	w.hash.add(b, copy(*b, p))
	n, err := w.f.WriteAt(p, w.offset)
	return n, w.wroteLocked(n, err)
}

// ReadFrom appends the data of r until its end. Other calls can use the writer while r
// blocks.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) { return w.store.copyTo(w, r) }

// wroteLocked counts bytes that were written, and breaks the writer if they are not the
// hashed ones.
func (w *Writer) wroteLocked(n int, err error) error {
	w.offset += int64(n)
	w.updatedAt = time.Now().UTC()
	w.tail.update(func() { w.tail.offset = w.offset })
	if err == nil {
		err = w.paceLocked()
	}
	if err == nil {
		return nil
	}
	// Bytes that may have been written after the first n must not be used when this is resumed.
	if !w.dropped {
		err = errors.Join(err, w.f.Truncate(w.offset))
	}
	w.broken = ingestError("write", w.ref, err)
	return w.broken
}

// paceLocked runs the periodic actions that are due.
func (w *Writer) paceLocked() error {
	p := w.store.pace
	if w.meta.Total > 0 && w.offset == w.meta.Total {
		return nil // the commit is next
	}
	if w.offset-w.synced >= p.sync {
		return w.syncLocked()
	}
	if n := w.offset - w.flushed; n >= p.writeBack {
		if err := w.f.WriteBack(w.flushed, n); err != nil {
			return err
		}
		w.flushed = w.offset
	}
	if w.offset-w.saved >= p.checkpoint {
		return w.saveLocked(stateFile, w.store.disk.ReplaceUnsynced)
	}
	return nil
}

// saveLocked writes a checkpoint.
func (w *Writer) saveLocked(name string, write func(string, []byte, fs.FileMode) error) error {
	c, err := takeCheckpoint(w.f, w.hash.wait(), w.algorithm, w.offset, w.store.boot)
	if err != nil {
		return err
	}
	raw, err := encodeCheckpoint(c)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(w.dir, name), raw, 0o600); err != nil {
		return err
	}
	w.saved = w.offset
	return nil
}

// syncLocked syncs the ingest: the data, then a checkpoint of it.
func (w *Writer) syncLocked() error {
	if err := w.f.Sync(); err != nil {
		return w.rollBackLocked(err)
	}
	if w.synced == 0 {
		// The first time: the ingest itself has to be found again.
		if err := w.store.disk.SyncFile(filepath.Join(w.dir, metaFile)); err != nil {
			return err
		}
		if err := w.store.disk.SyncDir(w.store.ingests()); err != nil {
			return err
		}
	}
	if err := w.saveLocked(syncedFile, w.store.disk.WriteFile); err != nil {
		return err
	}
	w.flushed, w.synced = w.offset, w.offset
	return nil
}

// rollBackLocked rolls an ingest whose data could not be synced back to its last synced state:
// from now on the kernel's memory and the disk may differ, and
// a later sync would not report it. The writer is unusable afterwards.
func (w *Writer) rollBackLocked(err error) error {
	w.dropped = true
	if w.synced > 0 {
		rerr := w.store.disk.Remove(filepath.Join(w.dir, stateFile))
		if errors.Is(rerr, fs.ErrNotExist) {
			rerr = nil
		}
		if rerr == nil {
			rerr = w.f.Truncate(w.synced)
		}
		if rerr == nil {
			return err
		}
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, w.store.removeIngest(w.dir, w.ref))
}

func (w *Writer) usableLocked() error {
	if w.f == nil {
		if w.ended != nil {
			return w.ended
		}
		return fmt.Errorf("ingest %q: writer is closed: %w", w.ref, errdefs.ErrFailedPrecondition)
	}
	return w.broken
}

// Status returns the progress of the ingest.
func (w *Writer) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Status{
		Ref: w.ref, Offset: w.offset, Total: w.meta.Total, Expected: w.meta.Expected,
		StartedAt: w.meta.StartedAt, UpdatedAt: w.updatedAt,
	}
}

// Digest returns the digest of the data written so far.
func (w *Writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return digest.NewDigest(w.algorithm, w.hash.wait())
}

// Truncate discards the data. size must be 0.
func (w *Writer) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if size != 0 {
		return fmt.Errorf("truncate ingest %q to %d bytes: only 0 is possible: %w", w.ref, size, errdefs.ErrInvalidArgument)
	}
	if w.f == nil || w.dropped {
		return w.usableLocked()
	}
	w.tail.update(func() { w.tail.offset, w.tail.restarts = 0, w.tail.restarts+1 })
	if err := w.truncateLocked(); err != nil {
		w.broken = ingestError("truncate", w.ref, err)
		return w.broken
	}
	w.broken = nil
	w.offset, w.flushed, w.saved, w.synced = 0, 0, 0, 0
	w.hash.wait().Reset()
	w.updatedAt = time.Now().UTC()
	return nil
}

// truncateLocked removes the checkpoints, durably, before their data.
func (w *Writer) truncateLocked() error {
	var gone bool
	for _, name := range [...]string{stateFile, syncedFile} {
		err := w.store.disk.Remove(filepath.Join(w.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		gone = gone || err == nil
	}
	if gone {
		if err := w.store.disk.SyncDir(w.dir); err != nil {
			return err
		}
	}
	return w.f.Truncate(0)
}

// Close syncs the data and leaves the ingest to be resumed. It does
// nothing after Commit or Close.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	var err error
	if w.broken == nil && !w.named && w.offset > w.synced {
		err = w.syncLocked()
	}
	if w.named {
		err = w.store.removeIngest(w.dir, w.ref)
	}
	return w.closeLocked(err)
}

// Discard ends the writer and deletes the ingest. It does nothing after Commit or Close.
func (w *Writer) Discard() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	return w.closeLocked(w.store.removeIngest(w.dir, w.ref))
}

// abort is Discard by another caller; false if the writer had already ended.
func (w *Writer) abort() (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return false, nil
	}
	w.ended = fmt.Errorf("ingest %q was aborted: %w", w.ref, errdefs.ErrAborted)
	return true, w.closeLocked(w.store.removeIngest(w.dir, w.ref))
}

// closeLocked releases the writer's resources; err is the error so far.
func (w *Writer) closeLocked(err error) error {
	w.hash.stop()
	err = errors.Join(err, w.f.Close())
	w.f = nil
	w.tail.update(func() {
		if w.tail.end == nil {
			w.tail.end = fmt.Errorf("follow ingest %q: writer has ended: %w", w.ref, errdefs.ErrAborted)
		}
	})
	w.store.unlock(w.ref)
	if err != nil {
		return ingestError("close", w.ref, err)
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
