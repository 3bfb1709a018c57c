package content_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

// flaky is a context that ends when it has been checked n times.
type flaky struct {
	context.Context
	mu sync.Mutex
	n  int
}

func (c *flaky) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// A client may cancel at any moment: a writer that is not opened leaves no ingest, and an existing
// ingest is kept.
func TestWriter_CancelledWhileOpening(t *testing.T) {
	for n := range 20 {
		s, _ := open(t)
		w, err := s.Writer(&flaky{Context: t.Context(), n: n}, "r", content.WriterOptions{Expected: digest.FromString("hello")})
		if err == nil {
			write(t, w, "hel")
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			visible(t, s, 0, 1)
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("checked %d times: %v", n, err)
		}
		visible(t, s, 0, 0)
	}
	s, _ := open(t)
	write(t, writer(t, s, "r", content.WriterOptions{}), "hel")
	if err := s.Abort(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	w := writer(t, s, "r", content.WriterOptions{})
	write(t, w, "hel")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		w, err := s.Writer(&flaky{Context: t.Context(), n: n}, "r", content.WriterOptions{})
		if err == nil {
			if w.Status().Offset != 3 {
				t.Errorf("status %+v", w.Status())
			}
			return
		}
		visible(t, s, 0, 1)
	}
	t.Error("it never opened")
}

// Neither goroutines nor descriptors are left, however a writer ends.
func TestWriter_LeavesNothing(t *testing.T) {
	s, _ := open(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // enough to be hashed in parallel with the write
	use := func(i int) {
		w, err := s.Writer(t.Context(), fmt.Sprint("r", i%4), content.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0:
			err = w.Commit(t.Context(), 0, w.Digest())
			if errdefs.IsAlreadyExists(err) || w.Status().Offset > int64(len(data)) {
				err = nil
			}
		case 1:
			err = w.Close()
		case 2:
			err = w.Discard()
		case 3:
			err = s.Abort(t.Context(), "r3")
		}
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	use(0)
	goroutines, files := runtime.NumGoroutine(), fds()
	for i := range 40 {
		use(i)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines; <-tick.C { // one that has reported its end still exists
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, were %d", runtime.NumGoroutine(), goroutines)
		}
	}
	if n := fds(); n > files {
		t.Errorf("%d descriptors, were %d", n, files)
	}
}

// The allocations of an ingest do not depend on the blob's size.
func TestWriter_AllocationsDoNotGrowWithBlob(t *testing.T) {
	s, _ := open(t)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	measure := func(chunks int) (allocs, total uint64) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w, err := s.Writer(t.Context(), "r", content.WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := io.LimitReader(endless(chunk), int64(chunks)<<20)
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
		d := w.Digest()
		if err := w.Commit(t.Context(), int64(chunks)<<20, ""); err != nil {
			t.Fatal(err)
		}
		reader, err := s.ReaderAt(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := reader.Section(0, -1)
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(null, whole); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(reader.Close(), null.Close(), s.Delete(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
	}
	measure(1)
	small, smallBytes := measure(2)
	big, bigBytes := measure(128)
	t.Logf("2 MiB: %d allocations of %d bytes; 128 MiB: %d of %d", small, smallBytes, big, bigBytes)
	// Only a checkpoint each 64 MiB may be added; the buffers may be allocated anew.
	if big > small+4*100 || bigBytes > smallBytes+5<<20 {
		t.Errorf("2 MiB: %d allocations of %d bytes; 128 MiB: %d of %d", small, smallBytes, big, bigBytes)
	}
}

// endless reads the same bytes for ever.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// A section copies its bytes from its position to any writer.
func TestSection(t *testing.T) {
	s, dir := open(t)
	d, _ := store(t, s, dir, "0123456789")
	r, err := s.ReaderAt(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, c := range []struct {
		off, n, skip int64
		want         string
	}{{0, -1, 0, "0123456789"}, {2, 5, 0, "23456"}, {2, 5, 2, "456"}, {7, 3, 1, "89"}, {10, -1, 0, ""}} {
		for name, to := range destinations(t) {
			sec, err := r.Section(c.off, c.n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, sec, c.skip); err != nil {
				t.Fatal(err)
			}
			got, n, err := to(sec)
			if err != nil || got != c.want || n != int64(len(c.want)) {
				t.Errorf("%s, %+v: %q, %d, %v", name, c, got, n, err)
			}
			if rest, err := io.ReadAll(sec); err != nil || len(rest) > 0 {
				t.Errorf("%s, %+v: %q is left, %v", name, c, rest, err)
			}
		}
	}
	for _, c := range [][2]int64{{-1, 1}, {11, -1}, {0, 11}, {5, 6}} {
		if _, err := r.Section(c[0], c[1]); !errdefs.IsOutOfRange(err) {
			t.Errorf("section %v: %v", c, err)
		}
	}
}

// destinations are the targets of copies: memory, a file, a socket.
func destinations(t *testing.T) map[string]func(io.Reader) (string, int64, error) {
	return map[string]func(io.Reader) (string, int64, error){
		"memory": func(r io.Reader) (string, int64, error) {
			var b bytes.Buffer
			n, err := io.Copy(&b, r)
			return b.String(), n, err
		},
		"file": func(r io.Reader) (string, int64, error) {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				return "", 0, err
			}
			n, err := io.Copy(f, r)
			got, rerr := os.ReadFile(f.Name())
			return string(got), n, errors.Join(err, rerr, f.Close())
		},
		"socket": func(r io.Reader) (string, int64, error) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				return "", 0, err
			}
			defer func() { _ = l.Close() }()
			out, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				return "", 0, err
			}
			in, err := l.Accept()
			if err != nil {
				return "", 0, err
			}
			defer func() { _ = in.Close() }()
			n, err := io.Copy(out, r)
			err = errors.Join(err, out.Close())
			got, rerr := io.ReadAll(in)
			return string(got), n, errors.Join(err, rerr)
		},
	}
}

// seen is a destination that, as files and sockets do, takes a file's data from the kernel.
type seen struct{ src io.Reader }

func (s *seen) Write([]byte) (int, error) { return 0, errors.New("the bytes came through memory") }

func (s *seen) ReadFrom(r io.Reader) (int64, error) {
	s.src = r
	return io.Copy(io.Discard, r)
}

func TestSection_CopiesInKernel(t *testing.T) {
	s, dir := open(t)
	d, _ := store(t, s, dir, "0123456789")
	r, err := s.ReaderAt(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, c := range [][2]int64{{0, -1}, {2, 3}} {
		sec, err := r.Section(c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		var to seen
		if _, err := io.Copy(&to, sec); err != nil {
			t.Fatal(err)
		}
		src := to.src
		if l, ok := src.(*io.LimitedReader); ok {
			src = l.R
		}
		if _, ok := src.(interface{ Fd() uintptr }); !ok {
			t.Errorf("%v: the source is %T", c, to.src)
		}
	}
}

func TestAbortStale_DropsOldIngests(t *testing.T) {
	s, dir := open(t)
	age := func(ref string, by time.Duration) {
		path := filepath.Join(dir, "ingest", digest.FromString(ref).Encoded(), "data")
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(by)); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"old", "old but in use", "old but not meant", "young"} {
		w := writer(t, s, ref, content.WriterOptions{})
		write(t, w, "x")
		if ref != "old but in use" {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if ref != "young" {
			age(ref, time.Hour)
		}
	}
	// The times are in the future so that no ingest is older than its start.
	age("young", 3*time.Hour)
	dropped, err := s.AbortStale(t.Context(), time.Now().Add(2*time.Hour), func(st content.Status) bool { return st.Ref != "old but not meant" })
	if err != nil || len(dropped) != 1 || dropped[0].Ref != "old" || dropped[0].Offset != 1 {
		t.Errorf("dropped %+v, %v", dropped, err)
	}
	visible(t, s, 0, 3)
	if _, err := s.Status(t.Context(), "old"); !errdefs.IsNotFound(err) {
		t.Errorf("it still exists: %v", err)
	}
}

// An ingest whose meta a power loss turned into rubbish is not one, and hides no other.
func TestOpen_DamagedMeta_IsNotAnIngest(t *testing.T) {
	for name, raw := range map[string]string{"empty": "", "zeros": "\x00\x00\x00", "of another": `{"version":1,"ref":"other"}`} {
		s, dir := open(t)
		for _, ref := range []string{"good", "bad"} {
			w := writer(t, s, ref, content.WriterOptions{})
			write(t, w, "hel")
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "ingest", digest.FromString("bad").Encoded(), "meta"), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		visible(t, s, 0, 1)
		w := writer(t, s, "bad", content.WriterOptions{})
		if off := w.Status().Offset; off != 0 {
			t.Errorf("%s: resumed at %d", name, off)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
