package content_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/content"
)

// benchSize is the blob of the benchmarks; chunk is how it comes.
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

// BenchmarkIngest is a whole ingest with its commit, beside what bounds it: a pass of
// SHA-256 over the same bytes, and a write of them with its sync.
func BenchmarkIngest(b *testing.B) {
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(benchSize)
		b.ReportAllocs()
		for b.Loop() {
			h := sha256.New()
			chunks(b, func(p []byte) error { _, err := h.Write(p); return err })
			h.Sum(nil)
		}
	})
	b.Run("write", func(b *testing.B) {
		dir := b.TempDir()
		b.SetBytes(benchSize)
		b.ReportAllocs()
		for b.Loop() {
			f, err := os.Create(filepath.Join(dir, "f"))
			if err != nil {
				b.Fatal(err)
			}
			chunks(b, func(p []byte) error { _, err := f.Write(p); return err })
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
			if err := os.Remove(f.Name()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ingest", func(b *testing.B) {
		ctx := context.Background()
		s, err := content.Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(benchSize)
		b.ReportAllocs()
		for b.Loop() {
			w, err := s.Writer(ctx, "r", content.WriterOptions{Total: benchSize})
			if err != nil {
				b.Fatal(err)
			}
			chunks(b, func(p []byte) error { _, err := w.Write(p); return err })
			d := w.Digest()
			if err := w.Commit(ctx, benchSize, ""); err != nil {
				b.Fatal(err)
			}
			if err := s.Delete(ctx, d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRead reads a whole blob into a file, which the kernel copies, beside a plain
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
