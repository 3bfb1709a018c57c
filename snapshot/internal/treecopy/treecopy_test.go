package treecopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The conformance suite of the native snapshot driver compares copies of every kind of file; this file
// tests the rest.

func TestCopy_KeepsHoles(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		f, err := os.Create(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{1 << 20, 8 << 20} {
			if _, err := f.WriteAt([]byte("data"), at); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Truncate(16<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
		var st, got unix.Stat_t
		if err := unix.Stat(from, &st); err != nil {
			t.Fatal(err)
		}
		c := &copier{ctx: t.Context().Err, links: map[uint64]string{}, buf: make([]byte, 64<<10), noClone: true, noRange: noRange}
		if err := c.copy(from, to, &st); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(to, &got); err != nil {
			t.Fatal(err)
		}
		if got.Size != st.Size || got.Blocks > 2*st.Blocks {
			t.Errorf("copy has %d bytes in %d blocks, the file %d in %d", got.Size, got.Blocks, st.Size, st.Blocks)
		}
		a, errA := os.ReadFile(from)
		b, errB := os.ReadFile(to)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("the copy differs: %v, %v", errA, errB)
		}
	}
}

func TestCopy_CancelledOrMissing(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, filepath.Join(dir, "a"), filepath.Join(dir, "c")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Copy(t.Context(), filepath.Join(dir, "missing"), filepath.Join(dir, "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
