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

// The compressions that CompressLevel knows.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// gzipBlock is how many bytes of a gzip stream are compressed by themselves.
const gzipBlock = 1 << 20

// CompressLevel returns a writer that compresses to w, on several processors at once, at a level: 1 to 9
// for gzip, 1 to 22 for zstd, 0 for the default. The same input gives the same output, whatever their
// number. The caller closes it, which does not close w. An unknown compression is an invalid argument.
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

// CheckLevel refuses a level that a compression does not have, and a compression that is not known.
func CheckLevel(c Compression, level int) error {
	most := map[Compression]int{Uncompressed: 0, Gzip: 9, Zstd: 22}
	top, ok := most[c]
	switch {
	case !ok:
		return invalidf("compression %q is not known: use gzip or zstd", c)
	case level < 0 || level > top && top == 0:
		return invalidf("compression level %d: what is not compressed has none", level)
	case level > top:
		return invalidf("compression level %d: %s has 1 to %d, or 0 for the default", level, c, top)
	}
	return nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// processors is how many may be used at once; more than a few only cost memory.
func processors() int { return min(runtime.GOMAXPROCS(0), 8) }
