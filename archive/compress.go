package archive

import (
	"fmt"
	"io"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Compression is how a layer is compressed.
type Compression string

// The compressions that Compress knows.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// gzipBlock is how many bytes of a gzip stream are compressed by themselves.
const gzipBlock = 1 << 20

// Compress returns a writer that compresses to w, on several processors at once. The same input
// gives the same output, whatever their number. The caller closes it, which does not close w. An
// unknown compression is an invalid argument.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Uncompressed:
		return nopCloser{w}, nil
	case Gzip:
		zw := pgzip.NewWriter(w)
		if err := zw.SetConcurrency(gzipBlock, processors()); err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return zw, nil
	case Zstd:
		zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(processors()))
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return zw, nil
	default:
		return nil, fmt.Errorf("compression %q is not known: use gzip or zstd: %w", c, errdefs.ErrInvalidArgument)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// processors is how many may be used at once; more than a few only cost memory.
func processors() int { return min(runtime.GOMAXPROCS(0), 8) }
