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
	// maxWindow bounds the memory that a zstd stream can ask for; the zstd tool has the same
	// limit.
	maxWindow   = 128 << 20
	inputBuffer = 128 << 10
)

// File is a source that is a complete file.
type File interface {
	io.Reader
	// Open opens the file again, for reading from its beginning. It fails if there is none.
	Open() (*os.File, error)
}

// Decompress returns the uncompressed content of r: gzip, zstd and bzip2 are detected by their first
// bytes, all else is passed on unchanged. If a helper for the format is given, it does the
// work; otherwise no other process runs. Memory is bounded. The caller closes
// the result before r, and the result ends with ctx; Close waits for a running read of r, so an
// r that may block for long has to end with ctx too. A truncated or corrupt stream gives
// an invalid argument. An r that is a File may be read by the helper itself.
func Decompress(ctx context.Context, r io.Reader, helpers ...Helper) (io.ReadCloser, error) {
	if p, ok := r.(*processing); ok && len(p.steps) == 0 {
		r = p.Reader // with its other interfaces
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
		return nil, fmt.Errorf("xz compression is not supported, want gzip or zstd: %w", errdefs.ErrNotImplemented)
	default:
		return io.NopCloser(br), nil
	}
}

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) }

// isZstd detects a zstd frame, or a skippable one before it.
func isZstd(magic []byte) bool {
	if bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return true
	}
	return len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18})
}

// input ends with a context, and remembers that the stream below failed, which is not the
// decompressor's error.
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

// WriteTo implements io.WriterTo by the source's own implementation, if there is one.
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

// isClosed reports whether err is from a pipe whose reading end is closed.
func isClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrDeadlineExceeded)
}

// damaged sets the class of a decompressor's error; an error of the source keeps its own.
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
