package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// zeros returns a zstd frame of n bytes of zeros, 4 bytes for each 128 KiB.
func zeros(n int64) []byte {
	const block = 128 << 10
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3} // a window of 128 KiB
	for ; n > 0; n -= block {
		header := min(n, block)<<3 | 1<<1 // run length
		if n <= block {
			header |= 1 // the last
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

func TestApply_LongNames_AreRefused(t *testing.T) {
	long, deep := strings.Repeat("n", 256), strings.Repeat("n/", 2048)+"n"
	fits := strings.Repeat("n", 255)
	mustApply(t, t.TempDir(), archive.Options{}, file("d/"+fits), hard("h", "d/"+fits), file(strings.Repeat(fits+"/", 14)+"f"))
	for what, tc := range map[string]struct {
		entry tar.Header
		says  string
	}{
		"name":           {file("d/" + long), "a part of 256 bytes"},
		"directory":      {file(long + "/f"), "a part of 256 bytes"},
		"path":           {file(deep), "path has 4097 bytes"},
		"link's target":  {link("l", strings.Repeat("t", 4097)), "4097 bytes"},
		"hard link's":    {hard("h", "d/"+long), "a part of 256 bytes"},
		"whiteout":       {file("d/.wh." + long), "a part of 260 bytes"},
		"whiteout fits?": {file("d/.wh." + fits), "a part of 259 bytes"},
	} {
		root := t.TempDir()
		err := apply(t, root, archive.Options{}, tc.entry)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", what, err)
		}
		if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", what, entries, err)
		}
	}
}

// Directories without entries are counted: a path of 4 KiB can cause two thousand, whose
// paths have 4 MiB in total.
func TestApply_CountsDirectoriesWithoutEntries(t *testing.T) {
	deep := strings.Repeat("n/", 2000) + "n"
	for name, whiteouts := range map[string]archive.Whiteouts{"remove": archive.WhiteoutRemove, "overlay": archive.WhiteoutOverlay} {
		err := apply(t, t.TempDir(), archive.Options{Whiteouts: whiteouts, MaxNames: 1 << 20}, file(deep))
		if !errdefs.IsInvalidArgument(err) || !errors.Is(err, archive.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A terabyte is refused by its header, as data, and after the archive's end; a file of holes counts too.
func TestApply_RefusesBombs(t *testing.T) {
	const limit = 64 << 20
	header := func(size int64) []byte {
		var b bytes.Buffer
		must(t, tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: size, Mode: 0o600}))
		return b.Bytes()
	}
	terabyte := zeros(1 << 40)
	for name, parts := range map[string][]io.Reader{
		"header":      {bytes.NewReader(header(1 << 40))},
		"data":        {bytes.NewReader(header(limit - 10))},
		"after it":    {bytes.NewReader(pack(t, file("f")))},
		"entries":     {endless{}},
		"pax headers": {&headers{}},
	} {
		t.Run(name, func(t *testing.T) {
			bomb, err := archive.Decompress(t.Context(), bytes.NewReader(terabyte))
			must(t, err)
			defer func() { must(t, bomb.Close()) }()
			root := t.TempDir()
			got := &counted{r: io.MultiReader(append(parts, bomb)...)}
			_, err = archive.Apply(t.Context(), root, got, archive.Options{MaxBytes: limit, MaxEntries: 100_000})
			if !errdefs.IsInvalidArgument(err) || !errors.Is(err, archive.ErrLimit) {
				t.Errorf("got %v", err)
			}
			if got.n > limit+1<<20 {
				t.Errorf("%d bytes were read", got.n)
			}
		})
	}
}

// endless is an archive without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755})
	return copy(p, bytes.Repeat(b.Bytes(), max(1, len(p)/b.Len()))), err
}

// headers are endless PAX headers, without an entry.
type headers struct{ block []byte }

func (h *headers) Read(p []byte) (int, error) {
	if len(h.block) == 0 {
		var b bytes.Buffer
		err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "d/" + strings.Repeat("n", 200), Typeflag: tar.TypeDir, Format: tar.FormatPAX, PAXRecords: map[string]string{"A.b": strings.Repeat("v", 100_000)}})
		if err != nil {
			return 0, err
		}
		h.block = b.Bytes()[:b.Len()-512] // without the entry's own
	}
	n := copy(p, h.block)
	h.block = h.block[n:]
	return n, nil
}

// counted counts the bytes read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// cancelling cancels after a number of bytes.
type cancelling struct {
	r      io.Reader
	after  int
	cancel func()
	then   int // bytes read since
}

func (c *cancelling) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.after -= n; c.after < 0 {
		c.cancel()
		c.then += n
	}
	return n, err
}

// Endless data that decompresses to nothing ends with the context too.
func TestDecompress_EndsWithContext(t *testing.T) {
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0xf8, 0xff, 0, 0}, make([]byte, 0xfff8)...)
	for how, empty := range map[string][]byte{"gzip": compress(t, nil, "gzip"), "zstd": skippable} {
		ctx, cancel := context.WithCancel(t.Context())
		src := &cancelling{r: bytes.NewReader(bytes.Repeat(empty, 64<<20/len(empty))), after: 1 << 20, cancel: cancel}
		r, err := archive.Decompress(ctx, src)
		must(t, err)
		if got, err := io.ReadAll(r); len(got) > 0 || !errors.Is(err, context.Canceled) || errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %d bytes, %v", how, len(got), err)
		}
		must(t, r.Close())
		if src.then > 4<<20 {
			t.Errorf("%s: %d bytes were read after it was cancelled", how, src.then)
		}
	}
}

// fifo is a source that is a file without data.
type fifo struct {
	io.Reader
	path   string
	opened func()
}

func (f fifo) Open() (*os.File, error) {
	f.opened()
	return os.OpenFile(f.path, os.O_RDWR, 0) // so that it has a writer
}

// A helper that hangs is ended, and its reader gets the reason.
func TestHelper_EndsWithContext(t *testing.T) {
	helpers := archive.Helpers()
	if len(helpers) == 0 {
		t.Fatal("no helpers: install Debian's isal")
	}
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	packed := compress(t, text(), "gzip")
	for _, h := range helpers {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := archive.Decompress(ctx, fifo{bytes.NewReader(packed), path, cancel}, h)
		must(t, err)
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %d, %v", h.Path, n, err)
		}
		must(t, r.Close())
	}
}
