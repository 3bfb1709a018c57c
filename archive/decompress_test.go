package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// text is 1.5 MiB of somewhat compressible data, more than the read-ahead.
func text() []byte {
	b := make([]byte, 3<<19)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte('a' + r.IntN(8))
	}
	return b
}

func compress(t testing.TB, data []byte, how string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		zw, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = zw
	default:
		return data
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decompressWith(data io.Reader, helpers ...archive.Helper) ([]byte, error) {
	r, err := archive.Decompress(context.Background(), data, helpers...)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	return got, errors.Join(err, r.Close())
}

func decompress(data io.Reader) ([]byte, error) { return decompressWith(data) }

func TestDecompress(t *testing.T) { testDecompress(t) }

func TestDecompress_ByHelpers(t *testing.T) {
	helpers := archive.Helpers()
	if len(helpers) == 0 {
		t.Fatal("no helper is installed: make deps")
	}
	before := descriptors(t)
	testDecompress(t, append(helpers, archive.Helper{Format: archive.Zstd, Path: "/usr/bin/zstd", Args: []string{"-dc"}})...)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, before there were %d", after, before)
	}
}

func TestHelper_InheritsTwoPipesOnly(t *testing.T) {
	const script = "ls -l /proc/self/fd | sed -n 's/.* -> //p' | sed 's/:.*//'; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=; id -u; pwd"
	h := archive.Helper{Format: archive.Gzip, Path: "/bin/sh", Args: []string{"-c", script}}
	t.Setenv("SECRET", "x")
	// Descriptors that the test itself inherited are not ours to close.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	got, err := decompressWith(bytes.NewReader(compress(t, []byte("x"), "gzip")), h)
	if err != nil {
		t.Fatal(err)
	}
	// The output of ls is a pipe to sed, and it has /proc open.
	lines := strings.Fields(string(got))
	if want := []string{"pipe", "pipe", "/dev/null", "65534", "/"}; len(lines) != 6 || !slices.Equal(append(lines[:3:3], lines[4:]...), want) || !strings.HasPrefix(lines[3], "/proc/") {
		t.Errorf("the helper sees %q", lines)
	}
}

func TestHelper_ClosedEarly_Ends(t *testing.T) {
	for _, h := range archive.Helpers() {
		r, err := archive.Decompress(context.Background(), bytes.NewReader(compress(t, bytes.Repeat(text(), 20), "gzip")), h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("read after close")
		}
	}
	if _, err := archive.Decompress(context.Background(), bytes.NewReader(compress(t, text(), "gzip")), archive.Helper{Format: archive.Gzip, Path: "/missing"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing helper: %v", err)
	}
}

func testDecompress(t *testing.T, helpers ...archive.Helper) {
	t.Helper()
	decompress := func(r io.Reader) ([]byte, error) { return decompressWith(r, helpers...) }
	want := text()
	for _, how := range []string{"plain", "gzip", "zstd"} {
		packed := compress(t, want, how)
		got, err := decompress(iotest.HalfReader(bytes.NewReader(packed)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", how, len(got), err)
		}
		if how == "plain" {
			continue
		}
		for _, n := range []int{5, 12, len(packed) / 2, len(packed) - 1} {
			if _, err := decompress(bytes.NewReader(packed[:n])); !errdefs.IsInvalidArgument(err) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut to %d bytes: %v", how, n, err)
			}
		}
		broken := bytes.Clone(packed)
		broken[len(broken)/2] ^= 0xff
		if _, err := decompress(bytes.NewReader(broken)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s damaged: %v", how, err)
		}
		boom := errors.New("boom")
		_, err = decompress(io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(boom)))
		if !errors.Is(err, boom) || errdefs.IsInvalidArgument(err) {
			t.Errorf("%s with a failing source: %v", how, err)
		}
	}
	for _, short := range []string{"", "x", "\x1f"} {
		if got, err := decompress(bytes.NewReader([]byte(short))); err != nil || string(got) != short {
			t.Errorf("%q: %q, %v", short, got, err)
		}
	}
	if _, err := decompress(bytes.NewReader([]byte("\xfd7zXZ\x00rest"))); !errdefs.IsNotImplemented(err) {
		t.Errorf("xz: %v", err)
	}
}

// opened is a source that is a file, and counts the bytes read by this process.
type opened struct {
	io.Reader
	path string
	read *int
}

func (o opened) Open() (*os.File, error) { return os.Open(o.path) }

func (o opened) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	*o.read += n
	return n, err
}

// A helper reads a file itself: this process reads only what it needs to detect the format.
func TestHelper_ReadsFileDirectly(t *testing.T) {
	want := bytes.Repeat(text(), 3)
	packed := compress(t, want, "gzip")
	path := filepath.Join(t.TempDir(), "layer")
	for _, h := range archive.Helpers() {
		before := descriptors(t)
		for name, tc := range map[string]struct {
			data []byte
			src  io.Reader // read by this process
			bad  func(error) bool
		}{
			"whole":     {packed, bytes.NewReader(packed), nil},
			"cut short": {packed[:len(packed)/2], bytes.NewReader(packed[:len(packed)/2]), errdefs.IsInvalidArgument},
			"unreadable": {packed[:len(packed)/2], io.MultiReader(bytes.NewReader(packed[:100]), iotest.ErrReader(os.ErrPermission)), func(err error) bool {
				return errors.Is(err, os.ErrPermission) && !errdefs.IsInvalidArgument(err)
			}},
		} {
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			read := 0
			got, err := decompressWith(opened{tc.src, path, &read}, h)
			if tc.bad != nil {
				if !tc.bad(err) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, want) || read >= len(packed) {
				t.Errorf("%s: %d bytes, %v; %d of %d read here", name, len(got), err, read, len(packed))
			}
		}
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors, before there were %d", after, before)
		}
	}
}

func TestDecompress_ClosedEarly(t *testing.T) {
	r, err := archive.Decompress(context.Background(), bytes.NewReader(compress(t, text(), "gzip")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("read after close")
	}
}

func TestZstdWindow_IsBounded(t *testing.T) {
	// A frame header that asks for a window of 2 GiB: exponent 21.
	if _, err := decompress(bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func FuzzDecompress(f *testing.F) {
	for _, how := range []string{"gzip", "zstd"} {
		f.Add(compress(f, []byte("some text, some text"), how))
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		r, err := archive.Decompress(context.Background(), bytes.NewReader(data))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		_ = r.Close()
	})
}

func ExampleDecompress() {
	r, err := archive.Decompress(context.Background(), bytes.NewReader([]byte("not compressed")))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(r)
	fmt.Println(string(text), err)
	// Output: not compressed <nil>
}
