package content

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
)

// counted counts the bytes read of an ingest's data.
type counted struct {
	durable.File
	n *int64
}

func (f counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	*f.n += int64(n)
	return n, err
}

type countingFS struct {
	durable.FS
	n *int64
}

func (f countingFS) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	file, err := f.FS.OpenFile(path, flag, perm)
	if err != nil || filepath.Base(path) != dataFile {
		return file, err
	}
	return counted{file, f.n}, nil
}

// Data before a valid checkpoint is not read again; with an invalid one it is.
func TestResume_TrustsValidCheckpointsOnly(t *testing.T) {
	const size = 100_000
	ref := "a"
	flip := func(path string, off int64) func(dir string) error {
		return func(dir string) error {
			f, err := os.OpenFile(filepath.Join(s0ingest(dir, ref), path), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			b := make([]byte, 1)
			_, err = f.ReadAt(b, off)
			b[0] ^= 0xff
			_, werr := f.WriteAt(b, off)
			return errors.Join(err, werr, f.Close())
		}
	}
	remove := func(names ...string) func(string) error {
		return func(dir string) error {
			var errs error
			for _, n := range names {
				errs = errors.Join(errs, os.Remove(filepath.Join(s0ingest(dir, ref), n)))
			}
			return errs
		}
	}
	cut := func(to int64) func(string) error {
		return func(dir string) error { return os.Truncate(filepath.Join(s0ingest(dir, ref), dataFile), to) }
	}
	for name, c := range map[string]struct {
		damage func(dir string) error
		boot   string
		offset int64 // offset of the ingest
		atMost int64 // bytes of it that are read
		all    bool  // all of them are
	}{
		"both good":               {func(string) error { return nil }, "boot-1", size, 20_000 + 2*tailSize, false},
		"state damaged":           {flip(stateFile, 30), "boot-1", size, 20_000 + tailSize, false},
		"synced damaged":          {flip(syncedFile, 30), "boot-1", size, 40_000 + tailSize, false},
		"synced's tail changed":   {flip(dataFile, 79_900), "boot-1", size, 40_000 + 2*tailSize, false},
		"both gone":               {remove(stateFile, syncedFile), "boot-1", size, size, true},
		"data shorter than both":  {cut(10_000), "boot-1", 10_000, 10_000, true},
		"another boot":            {func(string) error { return nil }, "boot-2", 80_000, 2 * tailSize, false},
		"another, synced damaged": {flip(syncedFile, 30), "boot-2", 0, 0, false},
		"another, data shorter":   {cut(79_999), "boot-2", 0, 0, false},
		"boot unknown":            {func(string) error { return nil }, "", 80_000, 2 * tailSize, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := open(dir, Options{FS: durable.OS{}}, "boot-1", testPace())
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.Writer(t.Context(), ref, WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for off := 0; off < size; off += 5_000 { // and then the process dies
				if _, err := w.Write(full(ref)[off : off+5_000]); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			var read int64
			s, err = open(dir, Options{FS: countingFS{durable.OS{}, &read}}, c.boot, testPace())
			if err != nil {
				t.Fatal(err)
			}
			w, err = s.Writer(t.Context(), ref, WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = w.Discard() }()
			if got := w.Status().Offset; got != c.offset {
				t.Errorf("offset %d, want %d", got, c.offset)
			}
			data, err := os.ReadFile(filepath.Join(s0ingest(dir, ref), dataFile))
			if err != nil || w.Digest() != digest.FromBytes(data) {
				t.Errorf("the digest is not of the data: %v", err)
			}
			if read > c.atMost || c.all && read < c.offset {
				t.Errorf("%d bytes read, want at most %d", read, c.atMost)
			}
		})
	}
}
