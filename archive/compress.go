package archive

import (
	"fmt"
	"io"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

// Compression is the compression of a layer.
type Compression string

// The compressions that CompressLevel supports.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// gzipBlock is the number of bytes that are compressed independently in a gzip stream.
const gzipBlock = 1 << 20

// CompressLevel returns a writer that compresses to w, on several processors in parallel, at a level:
// 1 to 9 for gzip, 1 to 22 for zstd, 0 for the default. The same input gives the same output, whatever
// the number of processors. The caller closes it, which does not close w. An unknown compression is an
// invalid argument.
func CompressLevel(w io.Writer, c Compression, level int) (io.WriteCloser, error) {
	if err := CheckLevel(c, level); err != nil {
		return nil, err
	}
	switch c {
	case Uncompressed:
		return nopCloser{w}, nil
	case Gzip:
		if level == 0 {
			level = pgzip.DefaultCompression
		}
		zw, err := pgzip.NewWriterLevel(w, level)
		if err == nil {
			err = zw.SetConcurrency(gzipBlock, processors())
		}
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return zw, nil
	case Zstd:
		how := zstd.SpeedDefault
		if level > 0 {
			how = zstd.EncoderLevelFromZstd(level)
		}
		zw, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(processors()), zstd.WithEncoderLevel(how))
		if err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return zw, nil
	default:
		return nil, fmt.Errorf("compression %q is unknown, want gzip or zstd: %w", c, errdefs.ErrInvalidArgument)
	}
}

// CheckLevel refuses a level that a compression does not have, and an unknown compression.
func CheckLevel(c Compression, level int) error {
	most := map[Compression]int{Uncompressed: 0, Gzip: 9, Zstd: 22}
	top, ok := most[c]
	switch {
	case !ok:
		return invalidf("compression %q is unknown: want gzip or zstd", c)
	case level < 0 || level > top && top == 0:
		return invalidf("compression level %d: no compression", level)
	case level > top:
		return invalidf("compression level %d: %s has 1 to %d, or 0 for the default", level, c, top)
	}
	return nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// processors returns how many to use in parallel; more than a few only cost memory.
func processors() int { return min(runtime.GOMAXPROCS(0), 8) }
