package content_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatproject/cleat/content"
)

// benchSize is the size of the blob of the benchmarks; chunk the size of a write.
const (
	benchSize = 256 << 20
	chunk     = 1 << 20
)

// chunks calls f with benchSize bytes in chunks.
func chunks(b *testing.B, f func([]byte) error) {
	b.Helper()
	p := make([]byte, chunk)
	for off := 0; off < benchSize; off += chunk {
		binary.LittleEndian.PutUint64(p, uint64(off))
		if err := f(p); err != nil {
			b.Fatal(err)
		}
	}
}

// passes are a complete ingest with its commit, and its lower bounds: SHA-256 of the same bytes,
// and a write of them with its sync.
// Files are removed with cleanUp, outside of the measured time.
func passes(b *testing.B) (all map[string]func(), cleanUp func()) {
	ctx := context.Background()
	s, err := content.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "f")
	cleanUp = func() {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		if err := s.Walk(ctx, func(i content.Info) error { return s.Delete(ctx, i.Digest) }); err != nil {
			b.Fatal(err)
		}
	}
	return map[string]func(){
		"sha256": func() {
			h := sha256.New()
			chunks(b, func(p []byte) error { _, err := h.Write(p); return err })
			h.Sum(nil)
		},
		"write": func() {
			f, err := os.Create(file)
			if err != nil {
				b.Fatal(err)
			}
			chunks(b, func(p []byte) error { _, err := f.Write(p); return err })
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				b.Fatal(err)
			}
		},
		"ingest": func() {
			w, err := s.Writer(ctx, "r", content.WriterOptions{Total: benchSize})
			if err != nil {
				b.Fatal(err)
			}
			chunks(b, func(p []byte) error { _, err := w.Write(p); return err })
			if err := w.Commit(ctx, benchSize, ""); err != nil {
				b.Fatal(err)
			}
		},
	}, cleanUp
}

// BenchmarkIngest runs each pass alone, with its allocations.
func BenchmarkIngest(b *testing.B) {
	all, cleanUp := passes(b)
	for name, pass := range all {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				pass()
				b.StopTimer()
				cleanUp()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkIngestAgainstBounds runs the passes in turn, so that a busy machine slows all of
// them down, and compares: the ingest's speed in per cent of the slower bound's, of the sums
// and of the best of each.
func BenchmarkIngestAgainstBounds(b *testing.B) {
	all, cleanUp := passes(b)
	sum, best := make(map[string]time.Duration), make(map[string]time.Duration)
	for b.Loop() {
		for name, pass := range all {
			start := time.Now()
			pass()
			took := time.Since(start)
			cleanUp()
			sum[name] += took
			if best[name] == 0 || took < best[name] {
				best[name] = took
			}
		}
	}
	for unit, took := range map[string]map[string]time.Duration{"%-of-slower": sum, "%-of-slower-at-best": best} {
		b.ReportMetric(100*float64(max(took["sha256"], took["write"]))/float64(took["ingest"]), unit)
	}
	for name, took := range best {
		b.ReportMetric(benchSize/1e6/took.Seconds(), "MB/s-"+name)
	}
}

// BenchmarkRead reads a complete blob into a file, which the kernel copies, and compares it with a plain
// copy through memory.
func BenchmarkRead(b *testing.B) {
	ctx := context.Background()
	s, err := content.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	w, err := s.Writer(ctx, "r", content.WriterOptions{})
	if err != nil {
		b.Fatal(err)
	}
	chunks(b, func(p []byte) error { _, err := w.Write(p); return err })
	d := w.Digest()
	if err := w.Commit(ctx, 0, ""); err != nil {
		b.Fatal(err)
	}
	r, err := s.ReaderAt(ctx, d)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	out, err := os.Create(filepath.Join(b.TempDir(), "out"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	for name, read := range map[string]func() (int64, error){
		"kernel": func() (int64, error) {
			whole, err := r.Section(0, -1)
			if err != nil {
				return 0, err
			}
			return io.Copy(out, whole)
		},
		"memory": func() (int64, error) {
			return io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{io.NewSectionReader(r, 0, r.Size())}, make([]byte, chunk))
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := out.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				if n, err := read(); err != nil || n != benchSize {
					b.Fatal(n, err)
				}
			}
		})
	}
}
