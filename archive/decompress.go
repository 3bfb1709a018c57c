package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow bounds the memory a zstd stream can ask for; it is what the zstd tool
	// allows too.
	maxWindow   = 128 << 20
	inputBuffer = 128 << 10
)

// File is a source that is all of a file.
type File interface {
	io.Reader
	// Open opens the file once more, for reading from its beginning. It fails where there is none.
	Open() (*os.File, error)
}

// Decompress returns what r holds, unpacked: gzip, zstd and bzip2 are known by their first
// bytes, all else is passed on as it is. Where a helper for the format is given, it does the
// work; otherwise nothing outside this process is run. Memory is bounded. The caller closes
// the result before r, and the result ends with ctx; Close waits for a read of r under way, so an
// r that may block for long has to end with ctx too. A stream that is cut short or damaged gives
// an invalid argument. An r that is a File may be read by the helper itself.
func Decompress(ctx context.Context, r io.Reader, helpers ...Helper) (io.ReadCloser, error) {
	if p, ok := r.(*processing); ok && len(p.steps) == 0 {
		r = p.Reader // with all that it can do beside being read
	}
	in := &input{ctx: ctx.Err, r: r}
	br := bufio.NewReaderSize(in, inputBuffer)
	magic, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("detect compression: %w", err)
	}
	for _, h := range helpers {
		if h.Format == Gzip && isGzip(magic) || h.Format == Zstd && isZstd(magic) {
			if f, ok := r.(File); ok {
				if file, err := f.Open(); err == nil {
					return h.startOn(ctx, file, in)
				}
			}
			return h.start(ctx, br, in)
		}
	}
	switch {
	case isGzip(magic):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("open gzip stream: %w", in.damaged(err))
		}
		return readAhead(zr, in.damaged, zr.Close), nil
	case isZstd(magic):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("open zstd stream: %w", in.damaged(err))
		}
		return readAhead(zr, in.damaged, func() error { zr.Close(); return nil }), nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return readAhead(bzip2.NewReader(br), in.damaged, func() error { return nil }), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("xz compression is not supported: compress with gzip or zstd: %w", errdefs.ErrNotImplemented)
	default:
		return io.NopCloser(br), nil
	}
}

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) }

// isZstd knows a frame of zstd, or a skippable one before it.
func isZstd(magic []byte) bool {
	if bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return true
	}
	return len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18})
}

// input ends with a context, and remembers that the stream below failed, which is not the
// decompressor's fault.
type input struct {
	ctx func() error
	r   io.Reader
	err error
}

func (in *input) Read(p []byte) (int, error) {
	if err := in.ctx(); err != nil {
		in.err = err
		return 0, err
	}
	n, err := in.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		in.err = err
	}
	return n, err
}

// WriteTo implements io.WriterTo by the source's own way, where it has one.
func (in *input) WriteTo(w io.Writer) (n int64, err error) {
	from, ok := in.r.(io.WriterTo)
	if !ok {
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, copyBuffer))
	}
	n, err = from.WriteTo(w)
	if err != nil && !isClosed(err) {
		in.err = err
	}
	return n, err
}

// isClosed tells of the reading end of a pipe that nobody reads any more.
func isClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrDeadlineExceeded)
}

// damaged gives a decompressor's complaint its class; an error from below keeps its own.
func (in *input) damaged(err error) error {
	switch {
	case in.err != nil:
		return in.err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("compressed data is cut short: %w: %w", io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
	default:
		return fmt.Errorf("compressed data is damaged: %w: %w", err, errdefs.ErrInvalidArgument)
	}
}
