package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// Reader reads a blob. It is safe for concurrent use; the caller closes it. It remains
// readable if the blob is deleted.
type Reader struct {
	f    *os.File
	size int64
}

var (
	_ io.ReaderAt   = (*Reader)(nil)
	_ io.ReadSeeker = (*Section)(nil)
	_ io.WriterTo   = (*Section)(nil)
)

// ReaderAt opens a blob, or returns not found.
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

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// Size returns the blob's length in bytes.
func (r *Reader) Size() int64 { return r.size }

// Close closes the blob's file.
func (r *Reader) Close() error { return r.f.Close() }

// Open returns the blob's file, opened again for reading, from its beginning, for use by another process.
// The caller closes it.
func (r *Reader) Open() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", r.f.Fd()))
}

// Section is a part of a blob, with a position. With io.Copy to a file (copy_file_range), a socket
// (sendfile) or a pipe (splice) the bytes stay in the kernel. It is not safe for
// concurrent use, and becomes invalid with its Reader.
type Section struct {
	*io.SectionReader
	r   *Reader
	off int64
}

// Section returns n bytes of the blob from off on; a negative n means the rest. Out of
// range if the blob has fewer.
func (r *Reader) Section(off, n int64) (*Section, error) {
	if off < 0 || off > r.size || n > r.size-off {
		return nil, fmt.Errorf("read %d bytes from %d: blob has %d: %w", n, off, r.size, errdefs.ErrOutOfRange)
	}
	if n < 0 {
		n = r.size - off
	}
	return &Section{io.NewSectionReader(r.f, off, n), r, off}, nil
}

// WriteTo implements io.WriterTo.
func (s *Section) WriteTo(w io.Writer) (int64, error) {
	at, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n, err := s.r.writeRange(w, s.off+at, s.Size()-at)
	_, serr := s.Seek(n, io.SeekCurrent)
	return n, errors.Join(err, serr)
}

// writeRange writes n bytes from off on to w.
func (r *Reader) writeRange(w io.Writer, off, n int64) (_ int64, err error) {
	if done, handled, err := spliceTo(w, r.f, off, n); handled {
		return done, err
	}
	// A file description of its own, because it has a position and others may be reading too.
	f, err := r.Open()
	if err != nil {
		return io.Copy(w, io.NewSectionReader(r.f, off, n)) // no /proc, then through memory
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	if off+n == r.size {
		return io.Copy(w, f)
	}
	done, err := io.Copy(w, io.LimitReader(f, n))
	if err == nil && done < n {
		err = io.ErrUnexpectedEOF
	}
	return done, err
}
