package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/proto/reason"
)

// archiveFile is an archive that a client named by its path.
type archiveFile struct {
	read  func([]byte) (int, error)
	close func() error
}

var _ io.ReadCloser = (*archiveFile)(nil)

func (f *archiveFile) Read(p []byte) (int, error) { return f.read(p) }
func (f *archiveFile) Close() error               { return f.close() }

// openArchive opens the FIFO or regular file that a client wants imported, without waiting. Reading
// a FIFO waits for its writer, and ends with ctx. Anything else is errdefs.ErrInvalidArgument, and
// a path that leads nowhere errdefs.ErrNotFound. With an owner, everything but a FIFO of
// that user is reason.PolicyDenied.
func openArchive(ctx context.Context, path string, owner *uint32) (io.ReadCloser, error) {
	name, kind, release, err := findArchive(path, owner)
	if err != nil {
		return nil, err
	}
	defer release()
	if kind == fs.ModeNamedPipe {
		return openFIFO(ctx, name)
	}
	return openRegular(name)
}

// findArchive returns the name by which the FIFO or regular file at a path is opened, and its type; release ends the
// use of the name. Its errors are those of openArchive.
func findArchive(path string, owner *uint32) (name string, kind fs.FileMode, release func(), err error) {
	if !filepath.IsAbs(path) {
		return "", 0, nil, fmt.Errorf("open archive %q: its path is not absolute: %w", path, errdefs.ErrInvalidArgument)
	}
	name, release, err = ownedFIFO(path, owner)
	if err != nil {
		return "", 0, nil, err
	}
	info, err := os.Stat(name)
	if err != nil {
		release()
		return "", 0, nil, archiveError(err)
	}
	if kind = info.Mode().Type(); kind != 0 && kind != fs.ModeNamedPipe {
		release()
		return "", 0, nil, notAnArchive(name)
	}
	return name, kind, release, nil
}

// ownedFIFO returns a name by which the FIFO of a user is opened, whatever becomes of its path; release ends its use.
// Without an owner that is the path itself.
func ownedFIFO(path string, owner *uint32) (name string, release func(), err error) {
	if owner == nil {
		return path, func() {}, nil
	}
	// One answer for all: which paths exist is not for every user to know.
	denied := fmt.Errorf("open archive %s: not a FIFO of user %d: %w", path, *owner, reason.PolicyDenied)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, denied
	}
	release = func() { _ = unix.Close(fd) } // nothing was done with it
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Uid != *owner {
		release()
		return "", nil, denied
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), release, nil
}

func openRegular(path string) (*os.File, error) {
	// Without blocking, for what may stand there by now.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, archiveError(err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return f, nil
	}
	_ = f.Close() // nothing was read
	if err != nil {
		return nil, archiveError(err)
	}
	return nil, notAnArchive(path)
}

func openFIFO(ctx context.Context, path string) (*archiveFile, error) {
	r, err := fifo.OpenReader(path)
	if err != nil {
		return nil, archiveError(err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = r.Close() // which ends a Read that waits
	})
	return &archiveFile{
		read: func(p []byte) (int, error) {
			n, err := r.Read(p)
			if err != nil && ctx.Err() != nil { // also for an end: the writer has not reached it
				err = fmt.Errorf("read archive: the client has left: %w", ctx.Err())
			}
			return n, err
		},
		close: func() error {
			if stop() {
				return r.Close()
			}
			<-closed
			return nil
		},
	}, nil
}

func archiveError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("open archive: %w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, fifo.ErrNotFIFO):
		return fmt.Errorf("open archive: %w: %w", err, errdefs.ErrInvalidArgument)
	default:
		return fmt.Errorf("open archive: %w", err)
	}
}

func notAnArchive(path string) error {
	return fmt.Errorf("open archive %s: it is neither a FIFO nor a regular file: %w", path, errdefs.ErrInvalidArgument)
}
