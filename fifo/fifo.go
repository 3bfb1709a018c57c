package fifo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFIFO is returned if a path leads to something that is not a FIFO.
var ErrNotFIFO = errors.New("not a FIFO")

// Create creates a FIFO with the permissions perm, less the umask. An existing FIFO is kept
// unchanged; any other file is ErrNotFIFO.
func Create(path string, perm fs.FileMode) error {
	err := unix.Mkfifo(path, uint32(perm.Perm()))
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EEXIST) {
		return check(path)
	}
	return &fs.PathError{Op: "create fifo", Path: path, Err: err}
}

// Remove removes the FIFO and succeeds if it does not exist. It refuses any other file. Processes
// that have the FIFO open are not affected.
func Remove(path string) error {
	err := check(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove fifo: %w", err)
	}
	return nil
}

func check(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("stat fifo: %w", err)
	}
	if fi.Mode().Type() != fs.ModeNamedPipe {
		return &fs.PathError{Op: "stat fifo", Path: path, Err: ErrNotFIFO}
	}
	return nil
}

// Sink opens the FIFO at path as the stdout of a process. child is the writing end for the process
// to inherit: blocking, with an open description of its own; close it once the process has it, or
// no reader will ever see the end of file. hold is a reading end that must not be read: while it is
// open, the writer is not killed for lack of a reader and its output is kept.
func Sink(path string) (hold, child *os.File, err error) {
	return ends(path, unix.O_RDONLY, unix.O_WRONLY)
}

// Source opens the FIFO at path as the stdin of a process. child is the reading end for the process
// to inherit, as in Sink. hold is a writing end: until it is closed, the process does not see an
// end of file, with or without a client. It never blocks: what is written to it waits in the
// poller.
func Source(path string) (hold, child *os.File, err error) {
	return ends(path, unix.O_WRONLY, unix.O_RDONLY)
}

// Outlet is a Sink for an output that is read by one holder after the other, with gaps between them.
// r is a reading end, to be read. child is open for reading too, so that the process is its own
// reader: without another reader it is neither killed nor loses a byte, and waits when the pipe is
// full. r sees the end of file when the last process that has child has exited, as with Sink; unread
// bytes are then kept only while r or another end is open.
func Outlet(path string) (r, child *os.File, err error) {
	return ends(path, unix.O_RDONLY, unix.O_RDWR)
}

// ReadEnd opens only a reading end: the hold of a Sink, or r of an Outlet, for a process that has
// its end already. It does not wait for a writer; without one, a read returns the end of file.
func ReadEnd(path string) (*os.File, error) {
	n, err := pin(path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	release, err := n.hold()
	if err != nil {
		return nil, err
	}
	defer release()
	return n.file(n.open(unix.O_RDONLY))
}

// WriteEnd opens only a writing end: the hold of a Source for a process that has its end already.
// It returns ENXIO if no process reads the FIFO any more.
func WriteEnd(path string) (*os.File, error) {
	n, err := pin(path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	return n.file(n.openNow(unix.O_WRONLY))
}

// ends opens two ends of one pipe, whatever happens to its name. child is blocking.
func ends(path string, holdFlag, childFlag int) (hold, child *os.File, err error) {
	n, err := pin(path)
	if err != nil {
		return nil, nil, err
	}
	defer n.close()
	release, err := n.hold()
	if err != nil {
		return nil, nil, err
	}
	defer release()
	h, err := n.open(holdFlag)
	if err != nil {
		return nil, nil, err
	}
	c, err := n.open(childFlag)
	if err == nil {
		if err = unix.SetNonblock(c, false); err != nil {
			err = errors.Join(n.fail(err), unix.Close(c))
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close(h))
	}
	return os.NewFile(uintptr(h), path), os.NewFile(uintptr(c), path), nil
}

// OpenBoth opens both ends at once. It never blocks, and neither reading nor writing ever ends by
// itself. Writes and reads wait in the poller; Close ends them.
func OpenBoth(path string) (*os.File, error) {
	n, err := pin(path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	return n.file(n.open(unix.O_RDWR))
}

// OpenWriter waits until a process has the FIFO open for reading, or ctx ends, and returns its
// writing end. Writing to it after the last reader left is EPIPE.
func OpenWriter(ctx context.Context, path string) (*os.File, error) {
	n, err := pin(path)
	if err != nil {
		return nil, err
	}
	defer n.close()
	var tick *time.Ticker
	for {
		fd, err := n.openNow(unix.O_WRONLY)
		if !errors.Is(err, unix.ENXIO) { // ENXIO: there is no reader
			return n.file(fd, err)
		}
		if tick == nil {
			tick = time.NewTicker(5 * time.Millisecond)
			defer tick.Stop() //nolint:revive // reached once
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a reader of %s: %w", path, ctx.Err())
		}
	}
}
