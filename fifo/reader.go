package fifo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads a FIFO to the end that its writers make. Unlike a plain file opened without
// blocking it waits for the first writer instead of reporting an end. One goroutine may read
// while others call Finish and Close.
type Reader struct {
	file     *os.File
	conn     syscall.RawConn
	finished atomic.Bool
	closed   atomic.Bool
}

var (
	_ io.ReadCloser = (*Reader)(nil)
	_ io.WriterTo   = (*Reader)(nil)
)

// OpenReader opens the FIFO's reading end at once, whether or not there is a writer.
func OpenReader(path string) (*Reader, error) {
	n, err := pin(path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	fd, err := n.openNow(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open fifo: %w", err)
	}
	return &Reader{file: f, conn: conn}, nil
}

// Read reads what is there, or waits. io.EOF comes when writers have been there and the last one
// has left; open a new Reader to wait for the next one. After Close it is os.ErrClosed.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := r.readOnce(p)
		if errors.Is(err, os.ErrDeadlineExceeded) && r.finished.Load() {
			// Finish woke us: from here on an empty pipe is its end.
			if err := r.file.SetReadDeadline(time.Time{}); err != nil {
				return 0, err
			}
			continue
		}
		return n, err
	}
}

func (r *Reader) readOnce(p []byte) (int, error) {
	var n int
	var rerr error
	err := r.conn.Read(func(fd uintptr) bool {
		var ready bool
		n, ready, rerr = r.attempt(int(fd), p)
		return ready
	})
	if err != nil {
		if r.closed.Load() {
			err = os.ErrClosed // the poller's own error is not it
		}
		return 0, fmt.Errorf("read fifo: %w", err)
	}
	return n, rerr
}

// attempt reads without waiting; ready is false where there is nothing to report yet.
func (r *Reader) attempt(fd int, p []byte) (n int, ready bool, err error) {
	for {
		n, err = unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN): // a writer is there, data is not
			return 0, false, nil
		case err != nil:
			return 0, true, fmt.Errorf("read fifo: %w", err)
		case n > 0:
			return n, true, nil
		}
		// There is no writer. The kernel reports a hang-up only if there has been one.
		events, err := pollOnce(fd)
		switch {
		case err != nil:
			return 0, true, err
		case events&unix.POLLIN != 0: // one came since, and wrote
		case events&unix.POLLHUP != 0 || r.finished.Load():
			return 0, true, io.EOF
		default:
			return 0, false, nil
		}
	}
}

func pollOnce(fd int) (events int16, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == nil {
			return fds[0].Revents, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("poll fifo: %w", err)
		}
	}
}

// copyBuffer is what WriteTo reads at once.
const copyBuffer = 128 << 10

// WriteTo copies to w until the end that the writers make; io.Copy uses it.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Finish says that no further writer will come: where there is none, Read returns what is left
// and then io.EOF instead of waiting. It wakes a Read that waits.
func (r *Reader) Finish() error {
	r.finished.Store(true)
	if err := r.file.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("finish fifo: %w", err)
	}
	return nil
}

// Close closes the reading end and ends a Read that waits.
func (r *Reader) Close() error {
	r.closed.Store(true)
	return r.file.Close()
}
