package content

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
)

// Follower reads an ingest from its beginning while it is written, from the file, and blocks if it has
// read all data so far. It returns io.EOF once the announced size is read, or the ingest is
// committed. Until then none of it is verified. It fails if the ingest is restarted or aborted.
type Follower struct {
	tail     *tail
	total    int64
	restarts int // those of the ingest before

	reading sync.Mutex // held by Read, and by Close for the file
	f       *os.File
	off     int64
	stopped bool // under the tail's lock
}

var (
	_ io.ReadCloser = (*Follower)(nil)
	_ io.WriterTo   = (*Follower)(nil)
)

// tail is the progress of a writer, for its followers.
type tail struct {
	mu       sync.Mutex
	changed  sync.Cond
	offset   int64
	restarts int
	end      error // io.EOF once it is a blob
}

// Follow returns a Follower of the present and future data of the ingest. It has to be closed.
func (w *Writer) Follow() (*Follower, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(w.dir, dataFile))
	if err != nil {
		return nil, ingestError("follow", w.ref, err)
	}
	if w.tail == nil {
		w.tail = &tail{offset: w.offset}
		w.tail.changed.L = &w.tail.mu
	}
	w.tail.mu.Lock()
	defer w.tail.mu.Unlock()
	return &Follower{tail: w.tail, total: w.meta.Total, restarts: w.tail.restarts, f: f}, nil
}

// update applies a change and wakes the followers; a nil tail has none.
func (t *tail) update(change func()) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	t.changed.Broadcast()
}

// await returns how many bytes can be read, at least one.
func (r *Follower) await() (int64, error) {
	t := r.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case r.stopped:
			return 0, os.ErrClosed
		case t.restarts != r.restarts:
			return 0, fmt.Errorf("follow ingest: ingest was restarted: %w", errdefs.ErrAborted)
		case t.offset > r.off:
			return t.offset - r.off, nil
		case r.total > 0 && r.off == r.total:
			return 0, io.EOF
		case t.end != nil:
			return 0, t.end
		}
		t.changed.Wait()
	}
}

// Read implements io.Reader. It does not block if the blob is complete.
func (r *Follower) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	most, err := r.await()
	if err != nil {
		return 0, err
	}
	n, err := r.f.ReadAt(p[:min(int64(len(p)), most)], r.off)
	r.off += int64(n)
	return n, r.short(n, err)
}

// WriteTo implements io.WriterTo. For a pipe the bytes are moved inside the kernel.
func (r *Follower) WriteTo(w io.Writer) (total int64, err error) {
	var buf []byte
	for {
		n, handled, err := r.splice(w)
		total += n
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if handled {
			continue
		}
		if buf == nil {
			buf = make([]byte, bufferSize)
		}
		m, err := r.Read(buf)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		m, err = w.Write(buf[:m])
		total += int64(m)
		if err != nil {
			return total, err
		}
	}
}

// splice moves the available data, at least one byte. Not handled if w is not a pipe.
func (r *Follower) splice(w io.Writer) (n int64, handled bool, err error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	most, err := r.await()
	if err != nil {
		return 0, true, err
	}
	n, handled, err = spliceTo(w, r.f, r.off, most)
	r.off += n
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = r.short(0, nil)
	}
	return n, handled, err
}

// short returns the error for a read of n bytes that had to return at least one.
func (r *Follower) short(n int, err error) error {
	switch {
	case n > 0:
		return nil
	case err == nil, err == io.EOF: //nolint:errorlint // as returned by a file
		return fmt.Errorf("follow ingest: file ends after %d bytes: %w", r.off, errdefs.ErrAborted)
	default:
		return fmt.Errorf("follow ingest: %w", err)
	}
}

// Valid reports whether the ingest has not been restarted since Follow.
func (r *Follower) Valid() bool {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	return r.tail.restarts == r.restarts
}

// Stop unblocks a Read, and makes later ones fail. It is safe for concurrent use.
func (r *Follower) Stop() { r.tail.update(func() { r.stopped = true }) }

// Close implements io.Closer. It ends a running Read and waits for it.
func (r *Follower) Close() error {
	r.Stop()
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f = nil
	return err
}
