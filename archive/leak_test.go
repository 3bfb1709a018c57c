package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/cleatproject/cleat/archive"
)

// descriptors returns the number of open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// It applies archives that succeed and that fail at each kind of step.
func TestNoDescriptorLeaks(t *testing.T) {
	below := t.TempDir()
	mustApply(t, below, archive.Options{}, dir("d"), file("d/f"), link("l", "d"))
	lower := func() (*os.File, error) { return os.Open(below) }
	whole := compress(t, text()[:300_000], "zstd")
	before := descriptors(t)
	for range 5 {
		for _, entries := range [][]tar.Header{
			{dir("a"), file("a/b"), file("l/x"), hard("h", "d/f"), file(".wh.z"), file("a/.wh..wh..opq")},
			{file("a/b"), file("../x")},
			{link("x", "y"), link("y", "x"), file("x/f")},
			{hard("h", "missing")},
			{hard("h", "d")},
			{hard("h", "l/missing/f")},
			{file("f"), file("f/below")},
		} {
			for _, w := range []archive.Whiteouts{archive.WhiteoutRemove, archive.WhiteoutOverlay} {
				for _, set := range waysDown() {
					opts := set(archive.Options{Whiteouts: w, Lower: lower})
					_, _ = archive.Apply(context.Background(), t.TempDir(), bytes.NewReader(pack(t, entries...)), opts)
				}
			}
		}
		for _, data := range [][]byte{whole, whole[:len(whole)/2], whole[:3]} {
			_, _ = decompress(bytes.NewReader(data))
		}
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, before there were %d", after, before)
	}
}
