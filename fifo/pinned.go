package fifo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
)

// pinned is a FIFO whose ends can be opened, whatever happens to its path: a descriptor that represents the name.
type pinned struct {
	fd   int
	path string // for errors
}

// pin finds the FIFO at path. Anything else there is ErrNotFIFO, and is not opened.
func pin(path string) (*pinned, error) {
	n := &pinned{path: path}
	for {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, n.fail(err)
		}
		n.fd = fd
		break
	}
	var st unix.Stat_t
	err := unix.Fstat(n.fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = ErrNotFIFO
	}
	if err != nil {
		n.close()
		return nil, n.fail(err)
	}
	return n, nil
}

func (n *pinned) close() { _ = unix.Close(n.fd) } // of an unused descriptor

func (n *pinned) name() string { return "/proc/self/fd/" + strconv.Itoa(n.fd) }

// fail returns the error of opening the FIFO, without the names of descriptors.
func (n *pinned) fail(err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &fs.PathError{Op: "open fifo", Path: n.path, Err: err}
}

// hold opens both ends. While they are open, each end that is opened has its other side, and open does not wait.
func (n *pinned) hold() (release func(), err error) {
	fd, err := n.openNow(unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	return func() { _ = unix.Close(fd) }, nil // of an unused descriptor
}

// open opens an end whose other side is open, or both ends. The descriptor does not block.
//
// The library returns a stream; a process can inherit a descriptor only, and splicing needs one.
//
//nolint:contextcheck // it does not wait
func (n *pinned) open(flag int) (fd int, err error) {
	end, err := fifo.OpenFifo(context.Background(), n.name(), flag, 0)
	if err != nil {
		return -1, n.fail(err)
	}
	defer func() { _ = end.Close() }() // the duplicate stays open
	file, ok := end.(syscall.Conn)
	if !ok {
		return -1, n.fail(errors.ErrUnsupported)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return -1, n.fail(err)
	}
	cerr := conn.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, cerr); err != nil {
		return -1, n.fail(err)
	}
	return fd, nil
}

// openNow opens an end even if the other side is not open, which the library cannot: it waits in open(2), in a thread.
// If it is cancelled, it opens the other side for a moment, which wakes other waiting processes as well. A writing end
// without a reader is ENXIO.
func (n *pinned) openNow(flag int) (fd int, err error) {
	for {
		fd, err = unix.Open(n.name(), flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return -1, n.fail(err)
		default:
			return fd, nil
		}
	}
}

// file converts the descriptors of open and openNow into a file.
func (n *pinned) file(fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), n.path), nil
}
