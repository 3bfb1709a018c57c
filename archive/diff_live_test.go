package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/archive"
)

// hookWriter calls a function before the first write.
type hookWriter struct {
	bytes.Buffer
	first func()
}

func (w *hookWriter) Write(p []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return w.Buffer.Write(p)
}

// A file is removed or replaced between the listing of its directory and its own turn.
func TestDiff_ConcurrentChanges(t *testing.T) {
	for name, test := range map[string]struct {
		change func(dir string) error
		want   []string // except the first
	}{
		"nothing":               {func(string) error { return nil }, []string{"5 d/", "0 d/x", "2 lto", "0 z"}},
		"a file goes":           {func(dir string) error { return os.Remove(dir + "/z") }, []string{"5 d/", "0 d/x", "2 lto"}},
		"a link goes":           {func(dir string) error { return os.Remove(dir + "/l") }, []string{"5 d/", "0 d/x", "0 z"}},
		"a directory goes":      {func(dir string) error { return os.RemoveAll(dir + "/d") }, []string{"2 lto", "0 z"}},
		"a directory is a file": {func(dir string) error { return os.Rename(dir+"/z", dir+"/l") }, []string{"5 d/", "0 d/x", "0 l"}},
		"a file is a directory": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/z"), os.Rename(dir+"/d", dir+"/z"))
		}, []string{"2 lto", "5 z/", "0 z/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			for way, diff := range map[string]func(w io.Writer, base, dir string) error{
				"the upper directory": func(w io.Writer, base, dir string) error {
					return archive.DiffOverlay(t.Context(), w, base, dir, archive.DiffOptions{})
				},
				"both trees": func(w io.Writer, base, dir string) error {
					return archive.Diff(t.Context(), w, base, dir, archive.DiffOptions{})
				},
			} {
				base, dir := t.TempDir(), t.TempDir()
				for _, d := range []string{base, dir} {
					must(t, os.Chmod(d, 0o755))
				}
				must(t, os.Mkdir(dir+"/d", 0o755))
				must(t, os.Symlink("to", dir+"/l"))
				for _, f := range []string{"a", "d/x", "z"} {
					must(t, os.WriteFile(filepath.Join(dir, f), []byte("text"), 0o644))
				}
				w := &hookWriter{first: func() { must(t, test.change(dir)) }}
				must(t, diff(w, base, dir))
				got, want := strings.Join(entries(t, w), "\n"), strings.Join(append([]string{"0 a"}, test.want...), "\n")
				if got != want {
					t.Errorf("of %s: got\n%s\nwant\n%s", way, got, want)
				}
			}
		})
	}
}

// A file of the lower tree that is removed from the upper tree at the last moment is deleted by the layer.
func TestDiff_ConcurrentRemoval_IsADeletion(t *testing.T) {
	base, dir := t.TempDir(), t.TempDir()
	for _, d := range []string{base, dir} {
		must(t, os.Chmod(d, 0o755))
		must(t, os.Mkdir(d+"/d", 0o755))
		must(t, os.WriteFile(d+"/z", nil, 0o644))
	}
	must(t, os.WriteFile(dir+"/a", nil, 0o644))
	w := &hookWriter{first: func() { must(t, errors.Join(os.Remove(dir+"/d"), os.Remove(dir+"/z"))) }}
	must(t, archive.Diff(t.Context(), w, base, dir, archive.DiffOptions{}))
	if got := strings.Join(entries(t, w), " "); got != "0 a 0 .wh.d 0 .wh.z" {
		t.Errorf("got %s", got)
	}
}

// A long file becomes shorter after its length was written.
func TestDiff_ShrinkingFile(t *testing.T) {
	const size = 1 << 20
	for _, live := range []bool{false, true} {
		dir := t.TempDir()
		name := filepath.Join(dir, "f")
		must(t, os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o644))
		kept := int64(-1)
		var buf bytes.Buffer
		err := archive.DiffOverlay(t.Context(), &buf, "", dir, archive.DiffOptions{Live: live, Progress: func(n int64) {
			if kept < 0 {
				kept = n + 10
				must(t, os.Truncate(name, kept))
			}
		}})
		if !live {
			if !errdefs.IsAborted(err) || !strings.Contains(err.Error(), "read f: the file became shorter") {
				t.Errorf("%v", err)
			}
			continue
		}
		must(t, err)
		tr := tar.NewReader(&buf)
		for hdr := new(tar.Header); hdr.Name != "f"; {
			hdr, err = tr.Next()
			must(t, err)
		}
		got, err := io.ReadAll(tr)
		must(t, err)
		if want := append(bytes.Repeat([]byte("x"), int(kept)), make([]byte, size-kept)...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes, of which %d are of the file; want %d and %d", len(got), bytes.Count(got, []byte("x")), len(want), kept)
		}
	}
}

// Every difference of an overlay that is changed as fast as possible can be
// applied, and has one of the texts of a file that is replaced all the time.
func TestDiff_LiveOverlay(t *testing.T) {
	dir := t.TempDir()
	base, upper := filepath.Join(dir, "base"), filepath.Join(dir, "upper")
	for _, d := range []string{base, upper} {
		must(t, os.Mkdir(d, 0o755))
	}
	g := &mutator{t: t, r: rand.New(rand.NewPCG(3, 7))}
	g.mutate(base, 60)
	must(t, os.WriteFile(filepath.Join(base, "whole"), []byte("x"), 0o644))
	merged := overlayOf(t, base, upper)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { churn(t, stop, merged) })
	defer wg.Wait()
	defer close(stop)
	opts := archive.DiffOptions{Live: true}
	for i := range 150 {
		var buf bytes.Buffer
		if i%2 == 0 {
			must(t, archive.DiffOverlay(t.Context(), &buf, base, upper, opts))
		} else {
			must(t, archive.Diff(t.Context(), &buf, base, merged, opts))
		}
		root := t.TempDir()
		must(t, os.WriteFile(filepath.Join(root, "whole"), []byte("x"), 0o644))
		_, err := archive.Apply(t.Context(), root, &buf, archive.Options{})
		must(t, err)
		text, err := os.ReadFile(filepath.Join(root, "whole"))
		must(t, err)
		if s := string(text); s == "" || s != strings.Repeat(s[:1], len(s)) {
			t.Fatalf("the file has %.40q", s)
		}
	}
}

// churn changes a tree until it is stopped.
func churn(t *testing.T, stop <-chan struct{}, root string) {
	g := &mutator{t: t, r: rand.New(rand.NewPCG(5, 7))}
	at := func(name string) string { return filepath.Join(root, name) }
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		text := bytes.Repeat([]byte{byte('0' + i%10)}, 1+i*997%(400<<10))
		err := errors.Join(os.WriteFile(at("count"), text, 0o644), os.WriteFile(at("next"), text, 0o644), os.Rename(at("next"), at("whole")))
		if err != nil {
			t.Error(err)
			return
		}
		if err := g.step(somewhere(g.r, root), somewhere(g.r, root), root); err != nil && !harmless(err) {
			t.Error(err)
			return
		}
	}
}

// somewhere returns a path in a tree, in an existing directory.
func somewhere(r *rand.Rand, root string) string {
	path := root
	for depth := 1 + r.IntN(3); depth > 0; depth-- {
		if fi, err := os.Lstat(path); err != nil || !fi.IsDir() {
			return path
		}
		path = filepath.Join(path, []string{"a", "b", "c"}[r.IntN(3)])
	}
	return path
}
