package content_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/internal/treecmp"
)

func open(t *testing.T) (*content.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := content.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func writer(t *testing.T, s *content.Store, ref string, opts content.WriterOptions) *content.Writer {
	t.Helper()
	w, err := s.Writer(context.Background(), ref, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// visible checks that the store has exactly n blobs and m ingests.
func visible(t *testing.T, s *content.Store, n, m int) {
	t.Helper()
	var blobs int
	if err := s.Walk(context.Background(), func(content.Info) error { blobs++; return nil }); err != nil {
		t.Fatal(err)
	}
	ingests, err := s.ListStatuses(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	if blobs != n || len(ingests) != m {
		t.Errorf("%d blobs and %d ingests, want %d and %d", blobs, len(ingests), n, m)
	}
}

func TestCommitAndRead(t *testing.T) {
	ctx := context.Background()
	s, dir := open(t)
	w := writer(t, s, "r", content.WriterOptions{Total: 5})
	write(t, w, "hel")
	if _, err := s.Info(ctx, digest.FromString("hello")); !errdefs.IsNotFound(err) {
		t.Errorf("visible before its commit: %v", err)
	}
	write(t, w, "lo")
	if err := w.Commit(ctx, 5, digest.FromString("hello")); err != nil {
		t.Fatal(err)
	}
	r, err := s.ReaderAt(ctx, digest.FromString("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	visible(t, s, 1, 0)
	fi, err := os.Stat(filepath.Join(dir, "blobs/sha256", digest.FromString("hello").Encoded()))
	if err != nil || fi.Mode().Perm() != 0o444 {
		t.Errorf("mode %v, %v", fi, err)
	}
	if err := s.Delete(ctx, digest.FromString("hello")); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, digest.FromString("hello")); !errdefs.IsNotFound(err) {
		t.Errorf("second delete: %v", err)
	}
}

func TestCommit_Mismatch_IsNeverVisible(t *testing.T) {
	ctx := context.Background()
	for name, tc := range map[string]struct {
		opts   content.WriterOptions
		size   int64
		digest digest.Digest
	}{
		"size":            {size: 4},
		"total":           {opts: content.WriterOptions{Total: 4}},
		"digest":          {digest: digest.FromString("other")},
		"expected":        {opts: content.WriterOptions{Expected: digest.FromString("other")}},
		"other algorithm": {digest: digest.SHA512.FromString("other")},
		"later expected":  {opts: content.WriterOptions{Expected: digest.FromString("hello")}, digest: digest.FromString("other")},
		"later total":     {opts: content.WriterOptions{Total: 5}, size: 4},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			w := writer(t, s, "r", tc.opts)
			write(t, w, "hello")
			if err := w.Commit(ctx, tc.size, tc.digest); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v, want a failed precondition", err)
			}
			visible(t, s, 0, 1)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Abort(ctx, "r"); err != nil {
				t.Error(err)
			}
			visible(t, s, 0, 0)
		})
	}
}

func TestResume(t *testing.T) {
	ctx := context.Background()
	s, dir := open(t)
	w := writer(t, s, "ns/r", content.WriterOptions{Total: 5, Expected: digest.FromString("hello")})
	write(t, w, "hel")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := content.Open(dir) // a restart
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.ListStatuses(ctx, "ns/")
	if err != nil || len(list) != 1 || list[0].Offset != 3 || list[0].Total != 5 || list[0].Ref != "ns/r" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if _, err := s.Writer(ctx, "ns/r", content.WriterOptions{Total: 6}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("another size: %v", err)
	}
	w = writer(t, s, "ns/r", content.WriterOptions{})
	if off := w.Status().Offset; off != 3 {
		t.Errorf("offset %d, want 3", off)
	}
	write(t, w, "lo")
	if err := w.Commit(ctx, 0, ""); err != nil {
		t.Error(err)
	}
	visible(t, s, 1, 0)
}

func TestTruncate_Restarts(t *testing.T) {
	s, _ := open(t)
	w := writer(t, s, "r", content.WriterOptions{})
	write(t, w, "wrong and longer")
	if err := w.Truncate(3); !errdefs.IsInvalidArgument(err) {
		t.Errorf("truncate to 3: %v", err)
	}
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	write(t, w, "right")
	if err := w.Commit(context.Background(), 5, digest.FromString("right")); err != nil {
		t.Error(err)
	}
}

func TestWriter_SecondForRef_IsUnavailable(t *testing.T) {
	ctx := context.Background()
	s, _ := open(t)
	w := writer(t, s, "r", content.WriterOptions{})
	if _, err := s.Writer(ctx, "r", content.WriterOptions{}); !errdefs.IsUnavailable(err) {
		t.Errorf("second writer: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte("x")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("write after close: %v", err)
	}
	writer(t, s, "r", content.WriterOptions{})
	if err := s.Abort(ctx, "missing"); !errdefs.IsNotFound(err) {
		t.Errorf("abort of a missing ingest: %v", err)
	}
}

func TestCommit_SameBlobTwice(t *testing.T) {
	ctx := context.Background()
	s, _ := open(t)
	a, b := writer(t, s, "a", content.WriterOptions{}), writer(t, s, "b", content.WriterOptions{})
	write(t, a, "x")
	write(t, b, "x")
	if err := a.Commit(ctx, 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx, 0, ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second commit: %v", err)
	}
	visible(t, s, 1, 0)
	if _, err := s.Writer(ctx, "c", content.WriterOptions{Expected: digest.FromString("x")}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("writer for a present blob: %v", err)
	}
}

func TestCommit_ManyWritersOfOneBlob(t *testing.T) {
	ctx := context.Background()
	s, _ := open(t)
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	var wins, exists int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			w, err := s.Writer(ctx, fmt.Sprint("r", i), content.WriterOptions{Expected: digest.FromBytes(data)})
			if err == nil {
				_, err = w.Write(data)
				err = errors.Join(err, w.Commit(ctx, int64(len(data)), ""))
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				wins++
			case errdefs.IsAlreadyExists(err):
				exists++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins != 1 || exists != 15 {
		t.Errorf("%d won, %d got already exists", wins, exists)
	}
	visible(t, s, 1, 0)
}

func TestBadDigests(t *testing.T) {
	ctx := context.Background()
	s, _ := open(t)
	for _, d := range []digest.Digest{"", "sha256:../../../etc/passwd", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256", digest.Digest("SHA256:" + digest.FromString("x").Encoded())} {
		if _, err := s.Info(ctx, d); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

func TestOtherAlgorithms(t *testing.T) {
	ctx := context.Background()
	s, _ := open(t)
	want := digest.NewDigestFromBytes(digest.SHA512, sum512("x"))
	w := writer(t, s, "r", content.WriterOptions{})
	write(t, w, "x")
	if err := w.Commit(ctx, 1, want); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Info(ctx, want); err != nil {
		t.Error(err)
	}
}

func sum512(s string) []byte {
	sum := sha512.Sum512([]byte(s))
	return sum[:]
}

func TestOpen_InterruptedIngest(t *testing.T) {
	s, dir := open(t)
	// The directory was created, and nothing else.
	if err := os.Mkdir(filepath.Join(dir, "ingest", digest.FromString("r").Encoded()), 0o700); err != nil {
		t.Fatal(err)
	}
	visible(t, s, 0, 0)
	w := writer(t, s, "r", content.WriterOptions{})
	write(t, w, "x")
	if err := w.Commit(context.Background(), 0, ""); err != nil {
		t.Error(err)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	store, err := content.Open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, err := store.Writer(ctx, "greeting", content.WriterOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = w.Close() }()
	if _, err := io.WriteString(w, "hello"); err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Commit(ctx, 5, digest.FromString("hello")); err != nil {
		fmt.Println(err)
		return
	}
	info, err := store.Info(ctx, digest.FromString("hello"))
	fmt.Println(info.Size, err)
	// Output: 5 <nil>
}

func TestReadOnly_ChangesNothing(t *testing.T) {
	ctx := context.Background()
	s, dir := open(t)
	w := writer(t, s, "r", content.WriterOptions{})
	write(t, w, "hello")
	if err := w.Commit(ctx, 5, ""); err != nil {
		t.Fatal(err)
	}
	w = writer(t, s, "active", content.WriterOptions{})
	write(t, w, "part")
	// As a crash leaves it; opening the store for writing would remove it.
	if err := os.Mkdir(filepath.Join(dir, "ingest", "half made"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := treecmp.Describe(t, dir)
	r, err := content.OpenWith(dir, content.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(ctx, digest.FromString("hello")); err != nil {
		t.Error(err)
	}
	visible(t, r, 1, 1)
	for what, err := range map[string]error{
		"delete": r.Delete(ctx, digest.FromString("hello")),
		"abort":  r.Abort(ctx, "active"),
		"write":  func() error { _, err := r.Writer(ctx, "new", content.WriterOptions{}); return err }(),
	} {
		if !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := treecmp.Describe(t, dir); !maps.Equal(before, after) {
		t.Errorf("from %v\nto %v", before, after)
	}
}
