package fifo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reader reads a FIFO until its writers close it. Unlike a plain file opened without blocking it
// waits for the first writer instead of reporting an end. One goroutine may read while others call
// Close.
type Reader struct {
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool
}

var _ io.ReadCloser = (*Reader)(nil)

// OpenReader opens the FIFO's reading end at once, with or without a writer.
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

// Read reads available data, or waits. It returns io.EOF when there have been writers and the last
// one has closed; open a new Reader to wait for the next one. After Close it returns os.ErrClosed.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	var rerr error
	err := r.conn.Read(func(fd uintptr) bool {
		var ready bool
		n, ready, rerr = attempt(int(fd), p)
		return ready
	})
	if err != nil {
		if r.closed.Load() {
			err = os.ErrClosed // the poller has an error of its own
		}
		return 0, fmt.Errorf("read fifo: %w", err)
	}
	return n, rerr
}

// attempt reads without waiting; ready is false if there is nothing to report yet.
func attempt(fd int, p []byte) (n int, ready bool, err error) {
	for {
		n, err = unix.Read(fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN): // there is a writer, but no data
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
		case events&unix.POLLIN != 0: // one has connected in between, and written
		case events&unix.POLLHUP != 0:
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

// Close closes the reading end and ends a pending Read.
func (r *Reader) Close() error {
	r.closed.Store(true)
	return r.file.Close()
}
