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

var _ io.ReadCloser = (*Reader)(nil)

// OpenReader opens the FIFO's reading end at once, whether or not there is a writer.
func OpenReader(path string) (*Reader, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK)
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
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, 0); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return 0, true, fmt.Errorf("poll fifo: %w", err)
		}
	}
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
		// No writer. The kernel reports a hang-up only if there has been one.
		if fds[0].Revents&unix.POLLHUP != 0 || r.finished.Load() {
			return 0, true, io.EOF
		}
		return 0, false, nil
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
