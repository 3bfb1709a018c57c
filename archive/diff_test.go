package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/internal/treecmp"
	"github.com/cleatproject/cleat/mount"
)

// It makes random changes in an overlay, and checks that every kind of difference,
// applied to the base, gives the same tree.
func TestDiff_AppliedToBase_GivesTree(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { roundTrip(t, seed) })
	}
}

func FuzzDiff(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(roundTrip)
}

func roundTrip(t *testing.T, seed uint64) {
	ctx := t.Context()
	g := &mutator{t: t, r: rand.New(rand.NewPCG(seed, 7))}
	dir := t.TempDir()
	base, upper := filepath.Join(dir, "base"), filepath.Join(dir, "upper")
	for _, d := range []string{base, upper} {
		must(t, os.Mkdir(d, 0o755))
	}
	g.mutate(base, 40)
	merged := overlayOf(t, base, upper)
	g.mutate(merged, 25)

	var fromUpper, fromBoth, again bytes.Buffer
	must(t, archive.DiffOverlay(ctx, &fromUpper, base, upper, archive.DiffOptions{}))
	must(t, archive.Diff(ctx, &fromBoth, base, merged, archive.DiffOptions{}))
	must(t, archive.Diff(ctx, &again, base, merged, archive.DiffOptions{}))
	if !bytes.Equal(fromBoth.Bytes(), again.Bytes()) {
		t.Error("the same trees gave two archives")
	}
	for name, diff := range map[string][]byte{"of the upper directory": fromUpper.Bytes(), "of both trees": fromBoth.Bytes()} {
		plain := filepath.Join(t.TempDir(), "copy")
		if out, err := exec.Command("cp", "-a", base, plain).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, err := archive.Apply(ctx, plain, bytes.NewReader(diff), archive.Options{})
		must(t, err)
		treecmp.Compare(t, plain, merged)

		up := t.TempDir()
		must(t, os.Chmod(up, 0o755))
		_, err = archive.Apply(ctx, up, bytes.NewReader(diff), archive.Options{
			Whiteouts: archive.WhiteoutOverlay, Lower: func() (*os.File, error) { return os.Open(base) },
		})
		must(t, err)
		treecmp.Compare(t, overlayOf(t, base, up), merged)
		if t.Failed() {
			t.Fatalf("by the difference %s", name)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overlayOf mounts upper over lower until the test ends.
func overlayOf(t *testing.T, lower, upper string) string {
	t.Helper()
	at, work := t.TempDir(), filepath.Join(filepath.Dir(upper), "work-"+filepath.Base(upper))
	must(t, os.Mkdir(work, 0o700))
	must(t, mount.All([]mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "lowerdir=" + mount.EscapeOverlayPath(lower), "upperdir=" + mount.EscapeOverlayPath(upper), "workdir=" + mount.EscapeOverlayPath(work),
	}}}, at))
	t.Cleanup(func() { must(t, mount.UnmountAll(at, 0)) })
	return at
}

// mutator changes a tree at random.
type mutator struct {
	t *testing.T
	r *rand.Rand
	n int
}

func (g *mutator) mutate(root string, steps int) {
	for range steps {
		paths := g.paths(root)
		dirs := []string{root}
		for _, p := range paths {
			if fi, err := os.Lstat(p); err == nil && fi.IsDir() {
				dirs = append(dirs, p)
			}
		}
		g.n++
		fresh := filepath.Join(dirs[g.r.IntN(len(dirs))], []string{"a", "b", "c", "ünï", "sp ace", "n\nl", "-x"}[g.r.IntN(7)])
		if g.r.IntN(3) == 0 {
			fresh += fmt.Sprint(g.n)
		}
		old := root
		if len(paths) > 0 {
			old = paths[g.r.IntN(len(paths))]
		}
		if err := g.step(fresh, old, root); err != nil && !harmless(err) {
			g.t.Fatal(err)
		}
	}
}

// harmless are the errors of steps that do not apply, which change nothing.
func harmless(err error) bool {
	for _, e := range []error{unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EXDEV, unix.EINVAL, unix.EPERM, unix.ENXIO, unix.ENOENT, unix.ELOOP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (g *mutator) step(fresh, old, root string) error {
	switch g.r.IntN(16) {
	case 0, 1, 2:
		if fi, err := os.Lstat(fresh); err == nil && !fi.Mode().IsRegular() {
			return nil // opening a FIFO would wait for a reader
		}
		return os.WriteFile(fresh, bytes.Repeat([]byte{byte(g.n)}, g.r.IntN(3)*40_000+g.n), 0o644)
	case 3, 4:
		return os.Mkdir(fresh, 0o700|os.FileMode(g.r.IntN(64)))
	case 5:
		return os.Symlink([]string{"a", "../b", "/nowhere/at/all", strings.Repeat("long/", 60)}[g.r.IntN(4)], fresh)
	case 6:
		return unix.Mkfifo(fresh, 0o600)
	case 7:
		return unix.Mknod(fresh, unix.S_IFCHR|0o640, int(unix.Mkdev(uint32(1+g.r.IntN(300)), uint32(g.r.IntN(70_000)))))
	case 8:
		if old == root {
			return nil
		}
		return os.Link(old, fresh)
	case 9, 10:
		if old == root {
			return nil
		}
		return os.RemoveAll(old)
	case 11:
		return unix.Rename(old, fresh)
	case 12:
		if fi, err := os.Lstat(old); err != nil || fi.Mode()&os.ModeSymlink != 0 {
			return err // what a link leads to may lie outside
		}
		return os.Chmod(old, []os.FileMode{0o600, 0o755, 0o777 | os.ModeSticky, 0o755 | os.ModeSetuid}[g.r.IntN(4)])
	case 13:
		return os.Lchown(old, g.r.IntN(1<<31), g.r.IntN(1000))
	case 14:
		return unix.Lsetxattr(old, fmt.Sprint("user.", g.r.IntN(3)), []byte(strings.Repeat("v\x00", g.r.IntN(9))), 0)
	default:
		stamp := time.Unix(g.r.Int64N(2_000_000_000), g.r.Int64N(1_000_000_000))
		ts := unix.NsecToTimespec(stamp.UnixNano())
		return unix.UtimesNanoAt(unix.AT_FDCWD, old, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

func (g *mutator) paths(root string) (list []string) {
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path != root {
			list = append(list, path)
		}
		return err
	})
	must(g.t, err)
	return list
}

// entries lists an archive, one line per entry.
func entries(t *testing.T, r io.Reader) (list []string) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		list = append(list, fmt.Sprintf("%c %s%s", hdr.Typeflag, hdr.Name, hdr.Linkname))
	}
}

func TestDiff_HasChangesOnly(t *testing.T) {
	base, next := t.TempDir(), t.TempDir()
	for _, dir := range []string{base, next} {
		must(t, os.Chmod(dir, 0o755))
		must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		for name, text := range map[string]string{"same": "x", "d/same": "y", "touched": "z", "gone": "g", "becomes": "f"} {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
	}
	must(t, os.Remove(filepath.Join(next, "gone")))
	must(t, os.Remove(filepath.Join(next, "becomes")))
	must(t, os.MkdirAll(filepath.Join(next, "becomes/a/directory"), 0o755))
	must(t, os.WriteFile(filepath.Join(next, "touched"), []byte("Z"), 0o644))
	must(t, os.Link(filepath.Join(next, "touched"), filepath.Join(next, "also")))
	must(t, unix.Mknod(filepath.Join(next, "socket"), unix.S_IFSOCK|0o600, 0))
	for _, dir := range []string{base, next} {
		for _, name := range []string{"same", "d/same", "d", "touched"} {
			must(t, os.Chtimes(filepath.Join(dir, name), time.Unix(9, 9), time.Unix(9, 9)))
		}
	}
	var buf bytes.Buffer
	must(t, archive.Diff(t.Context(), &buf, base, next, archive.DiffOptions{}))
	got := strings.Join(entries(t, &buf), "\n")
	want := strings.Join([]string{"0 also", "5 becomes/", "5 becomes/a/", "5 becomes/a/directory/", "0 .wh.gone", "1 touchedalso"}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDiff_InvalidTrees_Fail(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, ".wh.x"), nil, 0o644))
	if err := archive.Diff(t.Context(), io.Discard, "", dir, archive.DiffOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a file called as a whiteout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := archive.Diff(ctx, io.Discard, "", dir, archive.DiffOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := archive.Diff(t.Context(), io.Discard, "", filepath.Join(dir, "missing"), archive.DiffOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestCompress_InPieces_IsDeterministic(t *testing.T) {
	data := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.IntN(20))
	}
	for _, c := range []archive.Compression{archive.Uncompressed, archive.Gzip, archive.Zstd} {
		var bufs [2]bytes.Buffer
		for i := range bufs {
			w, err := archive.CompressLevel(&bufs[i], c, 0)
			must(t, err)
			// In pieces of different sizes each time, as files are read.
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(100_000))
				_, err := w.Write(rest[:n])
				must(t, err)
				rest = rest[n:]
			}
			must(t, w.Close())
		}
		if !bytes.Equal(bufs[0].Bytes(), bufs[1].Bytes()) {
			t.Errorf("%q: the same input gave two outputs", c)
		}
		out, err := archive.Decompress(t.Context(), &bufs[0])
		must(t, err)
		got, err := io.ReadAll(out)
		must(t, errors.Join(err, out.Close()))
		if !bytes.Equal(got, data) {
			t.Errorf("%q: what comes out differs", c)
		}
	}
	if _, err := archive.CompressLevel(io.Discard, "lzma", 0); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown compression: %v", err)
	}
}
