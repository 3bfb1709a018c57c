package blobs

import (
	"testing"

	"github.com/cleatproject/cleat/content"
)

func TestInterruptedImports_AreDropped_OthersKept(t *testing.T) {
	store, err := content.Open(t.TempDir())
	must(t, err)
	s := New(nil, store)
	kept := []string{
		"default/layer-sha256:1", "default/import-by-client", "default/x/import-ABCDEFGHIJKLMNOPQRSTUVWXYZ-1",
		"default/import-ABCDEFGHIJKLMNOPQRSTUVWXYZ-blobs",
	}
	for _, ref := range append(kept, "default/import-ABCDEFGHIJKLMNOPQRSTUVWXYZ-1", "other.one/import-234567GHIJKLMNOPQRSTUVWXYZ-12") {
		w, err := store.Writer(t.Context(), ref, content.WriterOptions{})
		must(t, err)
		_, err = w.Write([]byte("part"))
		must(t, err)
		must(t, w.Close())
	}
	must(t, s.CleanImports(t.Context()))
	left, err := store.ListStatuses(t.Context(), "")
	must(t, err)
	if len(left) != len(kept) {
		t.Fatalf("left: %+v", left)
	}
	for _, ref := range kept {
		if _, err := store.Status(t.Context(), ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
