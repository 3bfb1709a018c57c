package streams

import (
	"errors"
	"fmt"
	"io"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
)

const (
	// window is how many bytes a client may send before they are read.
	window = 512 << 10
	// maxChunk bounds the bytes of a message.
	maxChunk = 32 << 10
	// maxWindow bounds the window that a client can grant.
	maxWindow = 1 << 40
)

// Reader reads the bytes that a client sends: it returns io.EOF when the client ends its side, and an error when the
// client disconnects. It is not safe for concurrent use.
type Reader struct {
	stream  *Stream
	granted int // bytes that the client may still send
	rest    []byte
	err     error
}

var _ io.Reader = (*Reader)(nil)

// NewReader returns a Reader of a stream.
func NewReader(s *Stream) *Reader { return &Reader{stream: s} }

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.receive()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *Reader) receive() error {
	if r.granted < window/2 {
		more := window - r.granted
		if err := r.stream.Send(&transfertypes.WindowUpdate{Update: int32(more)}); err != nil {
			// A client that has sent everything may accept no more messages.
			return errors.Join(err, errdefs.ErrUnavailable)
		}
		r.granted = window
	}
	var m transfertypes.Data
	err := r.stream.Into(&m)
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("receive from stream %s: %w", r.stream.ID(), err)
	}
	r.rest = m.GetData()
	r.granted -= len(r.rest)
	return nil
}

// Writer sends bytes to a client, within its window. It is not safe for concurrent use.
type Writer struct {
	stream *Stream
	window int64
}

var _ io.Writer = (*Writer)(nil)

// NewWriter returns a Writer to a stream.
func NewWriter(s *Stream) *Writer { return &Writer{stream: s} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if err := w.await(); err != nil {
			return done, err
		}
		n := min(int(min(w.window, maxChunk)), len(p)-done)
		if err := w.stream.Send(&transfertypes.Data{Data: p[done : done+n]}); err != nil {
			return done, err
		}
		w.window -= int64(n)
		done += n
	}
	return done, nil
}

// await waits until the client accepts bytes.
func (w *Writer) await() error {
	for w.window <= 0 {
		var m transfertypes.WindowUpdate
		err := w.stream.Into(&m)
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("send to stream %s: ended by the client before all data was sent: %w", w.stream.ID(), errdefs.ErrUnavailable)
		case err != nil:
			return fmt.Errorf("send to stream %s: %w", w.stream.ID(), err)
		case m.GetUpdate() < 0 || w.window > maxWindow:
			return fmt.Errorf("send to stream %s: a window of %d: %w", w.stream.ID(), m.GetUpdate(), errdefs.ErrInvalidArgument)
		}
		w.window += int64(m.GetUpdate())
	}
	return nil
}
