package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/inroot"
	"github.com/cleatproject/cleat/proto/reason"
)

const (
	headerBuffer = 64 << 10
	copyBuffer   = 256 << 10
	maxPath      = 4096
	maxName      = 255
	blockSize    = 512 // of tar
	// writeBack is the size from which writing a file to disk is started at once.
	writeBack = 1 << 20
)

// applier is one call of Apply.
type applier struct {
	opts   Options
	root   int
	open   inroot.Opener
	parent parentDir
	result Result
	names  int // total length of all paths so far
	// dirTimes are set at the end, since adding to a directory changes its time.
	dirTimes []dirTime
	// unpacked are the paths that this archive created, for WhiteoutRemove.
	unpacked map[string]struct{}
	lower    lowerDir
	buf      []byte
}

type dirTime struct {
	path  string
	times [2]unix.Timespec
}

// Apply reads an uncompressed tar archive to its end and applies it to the directory
// root. It checks ctx at each entry and each piece of data.
func Apply(ctx context.Context, root string, r io.Reader, opts Options) (Result, error) {
	opts.setDefaults()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, fmt.Errorf("apply archive: %w", &os.PathError{Op: "open", Path: root, Err: err})
	}
	a := &applier{opts: opts, root: fd, buf: make([]byte, copyBuffer), parent: parentDir{fd: -1}, open: inroot.Opener{Kernel: opts.openat2}}
	a.lower = lowerDir{open: opts.Lower, in: &a.open, fd: -1, unknown: opts.Alone}
	if opts.Whiteouts == WhiteoutRemove {
		a.unpacked = make(map[string]struct{})
	}
	defer a.close()
	defer spread(fd)()
	if err := a.run(ctx, r); err != nil {
		return a.result, fmt.Errorf("apply archive: %w", err)
	}
	return a.result, nil
}

func (a *applier) close() {
	a.parent.drop()
	a.lower.close()
	_ = unix.Close(a.root)
}

func (a *applier) run(ctx context.Context, r io.Reader) error {
	src := &source{r: r, limit: a.opts.MaxBytes, left: a.opts.MaxBytes, check: ctx.Err}
	br := bufio.NewReaderSize(src, headerBuffer)
	read := &counter{r: br}
	tr := tar.NewReader(read)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return classify(err)
		}
		if a.result.Entries++; a.result.Entries > a.opts.MaxEntries {
			return overf("archive has more than %d entries", a.opts.MaxEntries)
		}
		if err := a.countName(hdr.Name); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %.512q: %w", hdr.Name, classify(err))
		}
	}
	if read.n%blockSize != 0 {
		// The tar package accepts an end inside a file's padding.
		return classify(io.ErrUnexpectedEOF)
	}
	// Bytes after the archive belong to the layer's digest: read them.
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{br}, a.buf); err != nil {
		return classify(err)
	}
	return a.setDirTimes(ctx.Err)
}

// countName counts a path that has to be remembered.
func (a *applier) countName(name string) error {
	if a.names += len(name); a.names > a.opts.MaxNames {
		return overf("total length of paths exceeds %d bytes", a.opts.MaxNames)
	}
	return nil
}

// classify sets the class of an error of the archive, or of the disk.
func classify(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("archive is cut short: %w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return fmt.Errorf("not a tar archive, or corrupt: %w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", err, reason.DiskFull)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	default:
		return err
	}
}

// counter counts the bytes read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// source is the archive's stream, bounded and ended by the context.
type source struct {
	r           io.Reader
	limit, left int64
	check       func() error
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.check(); err != nil {
		return 0, err
	}
	if s.left <= 0 {
		// Only an archive that continues is too long.
		var one [1]byte
		n, err := s.r.Read(one[:])
		if n > 0 {
			return 0, overf("archive is longer than %d bytes", s.limit)
		}
		return 0, err
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.r.Read(p)
	s.left -= int64(n)
	return n, err
}
