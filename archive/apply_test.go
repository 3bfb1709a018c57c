package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// pack returns a tar archive; a header without a type is a regular file with its name as content.
func pack(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		data := ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			data = h.Name
			h.Size = int64(len(data))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_000_000, 0)
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name} }
func dir(name string) tar.Header  { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func link(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func apply(t testing.TB, root string, opts archive.Options, entries ...tar.Header) error {
	t.Helper()
	_, err := archive.Apply(context.Background(), root, bytes.NewReader(pack(t, entries...)), opts)
	return err
}

func mustApply(t testing.TB, root string, opts archive.Options, entries ...tar.Header) {
	t.Helper()
	if err := apply(t, root, opts, entries...); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", path, got, err, want)
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s should not be there: %v", path, err)
	}
}

// waysDown are the ways to resolve paths, as functions from options to options.
func waysDown() map[string]func(archive.Options) archive.Options {
	return map[string]func(archive.Options) archive.Options{
		"openat2": func(o archive.Options) archive.Options { return o },
		"walk":    archive.Options.Walking,
	}
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st
}

func TestAttributes(t *testing.T) {
	root := t.TempDir()
	when := time.Unix(1_234_567_890, 123_456_789)
	mustApply(t, root, archive.Options{},
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751, Uid: 3},
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2775, Uid: 1, Gid: 2, ModTime: when},
		tar.Header{Name: "d/f", Mode: 0o4755, Uid: 3_000_000_000, Gid: 4, ModTime: when, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":      "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.user.note":                "n",
			"SCHILY.xattr.trusted.overlay.redirect": "/etc",
			"SCHILY.xattr.user.overlay.opaque":      "y",
		}},
		tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "/nowhere", Uid: 5, ModTime: when},
		hard("d/h", "d/f"),
		tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo, Mode: 0o622},
		tar.Header{Name: "d/blk", Typeflag: tar.TypeBlock, Devmajor: 300, Devminor: 70000},
		file("made/deep/f"),
	)
	if st := lstat(t, root); st.Mode&0o7777 != 0o751 || st.Uid != 3 {
		t.Errorf("root: %o %d", st.Mode, st.Uid)
	}
	if st := lstat(t, root+"/d"); st.Mode&0o7777 != 0o2775 || st.Uid != 1 || st.Gid != 2 || st.Mtim.Nsec != 123_456_789 {
		t.Errorf("d: %o %d:%d %v", st.Mode, st.Uid, st.Gid, st.Mtim)
	}
	f := lstat(t, root+"/d/f")
	if f.Mode&0o7777 != 0o4755 || f.Uid != 3_000_000_000 || f.Gid != 4 || f.Mtim.Sec != 1_234_567_890 || f.Mtim.Nsec != 123_456_789 {
		t.Errorf("f: %o %d:%d %v", f.Mode, f.Uid, f.Gid, f.Mtim)
	}
	if h := lstat(t, root+"/d/h"); h.Ino != f.Ino {
		t.Error("the hard link is another file")
	}
	if l := lstat(t, root+"/d/l"); l.Uid != 5 || l.Mtim.Nsec != 123_456_789 {
		t.Errorf("l: %d %v", l.Uid, l.Mtim)
	}
	if n := lstat(t, root+"/d/null"); n.Rdev != unix.Mkdev(1, 3) || n.Mode != unix.S_IFCHR|0o666 {
		t.Errorf("null: %o %x", n.Mode, n.Rdev)
	}
	if b := lstat(t, root+"/d/blk"); b.Rdev != unix.Mkdev(300, 70000) {
		t.Errorf("blk: %x", b.Rdev)
	}
	if p := lstat(t, root+"/d/pipe"); p.Mode != unix.S_IFIFO|0o622 {
		t.Errorf("pipe: %o", p.Mode)
	}
	buf := make([]byte, 100)
	for attr, want := range map[string]bool{"security.capability": true, "user.note": true, "trusted.overlay.redirect": false, "user.overlay.opaque": false} {
		if _, err := unix.Lgetxattr(root+"/d/f", attr, buf); (err == nil) != want {
			t.Errorf("attribute %s: %v", attr, err)
		}
	}
}

func TestReplacing(t *testing.T) {
	root := t.TempDir()
	mustApply(t, root, archive.Options{}, dir("a"), file("a/x"), file("b"), link("c", "b"), dir("d"), file("d/y"))
	mustApply(t, root, archive.Options{}, file("a"), dir("b"), file("c"), dir("d"), file("d/z"))
	wantText(t, root+"/a", "a")
	wantText(t, root+"/c", "c")
	wantText(t, root+"/d/y", "d/y")
	wantText(t, root+"/d/z", "d/z")
	if st := lstat(t, root+"/b"); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("b is not a directory: %o", st.Mode)
	}
}

// TestHostile applies archives that try to reach outside. Each must be refused, or stay inside
// the root; files outside must not change.
func TestHostile(t *testing.T) {
	for name, tc := range map[string]struct {
		entries []tar.Header
		refused bool
	}{
		"dot dot":                  {[]tar.Header{file("../evil")}, true},
		"dot dot inside":           {[]tar.Header{dir("a"), file("a/../../evil")}, true},
		"absolute":                 {[]tar.Header{file("OUTSIDE/evil")}, false},
		"absolute link":            {[]tar.Header{link("l", "OUTSIDE"), file("l/evil")}, false},
		"climbing link":            {[]tar.Header{link("l", "../../../../../../../..OUTSIDE"), file("l/evil")}, false},
		"link to file":             {[]tar.Header{link("l", "OUTSIDE/secret"), file("l")}, false},
		"link then directory":      {[]tar.Header{link("l", "OUTSIDE"), dir("l"), file("l/evil")}, false},
		"swapped parent":           {[]tar.Header{dir("d"), file("d/a"), link("d", "OUTSIDE"), file("d/evil")}, false},
		"link chain":               {[]tar.Header{link("a", "b"), link("b", "OUTSIDE"), file("a/sub/evil")}, false},
		"link loop":                {[]tar.Header{link("a", "b"), link("b", "a"), file("a/evil")}, true},
		"proc":                     {[]tar.Header{link("l", "/proc/self/root"), file("l/OUTSIDE/evil")}, false},
		"hard link outside":        {[]tar.Header{hard("h", "OUTSIDE/secret")}, true},
		"hard link dot dot":        {[]tar.Header{hard("h", "../../../../..OUTSIDE/secret")}, true},
		"hard link through link":   {[]tar.Header{link("l", "OUTSIDE"), hard("h", "l/secret")}, true},
		"hard link to a link":      {[]tar.Header{link("l", "OUTSIDE/secret"), hard("h", "l"), file("h")}, false},
		"hard link to a directory": {[]tar.Header{dir("d"), hard("h", "d")}, true},
		"hard link to the root":    {[]tar.Header{hard("h", "/")}, true},
		"whiteout of dot dot":      {[]tar.Header{dir("a"), file("a/.wh...")}, true},
		"whiteout of dot":          {[]tar.Header{dir("a"), file("a/.wh..")}, true},
		"whiteout of nothing":      {[]tar.Header{file(".wh.")}, true},
		"whiteout through link":    {[]tar.Header{link("l", "OUTSIDE"), file("l/.wh.secret")}, false},
		"opaque through link":      {[]tar.Header{link("l", "OUTSIDE"), file("l/.wh..wh..opq")}, false},
		"below a whiteout":         {[]tar.Header{file(".wh.a/evil")}, true},
		"attributes through link":  {[]tar.Header{link("l", "OUTSIDE"), {Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 7}}, false},
		"root as a file":           {[]tar.Header{file(".")}, true},
		"id too high":              {[]tar.Header{{Name: "f", Uid: 1<<32 - 1}}, true},
		"negative id":              {[]tar.Header{{Name: "f", Uid: -1}}, true},
		"long name":                {[]tar.Header{file(strings.Repeat("n", 300))}, true},
		"long path":                {[]tar.Header{file(strings.Repeat("n/", 3000) + "n")}, true},
	} {
		for mode, whiteouts := range map[string]archive.Whiteouts{"remove": archive.WhiteoutRemove, "overlay": archive.WhiteoutOverlay} {
			for way, set := range waysDown() {
				t.Run(name+"/"+mode+"/"+way, func(t *testing.T) {
					hostile(t, tc.entries, tc.refused, set(archive.Options{Whiteouts: whiteouts}))
				})
			}
		}
	}
}

func hostile(t *testing.T, corpus []tar.Header, refused bool, opts archive.Options) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var entries []tar.Header
	for _, e := range corpus {
		e.Name = strings.ReplaceAll(e.Name, "OUTSIDE", outside)
		e.Linkname = strings.ReplaceAll(e.Linkname, "OUTSIDE", outside)
		entries = append(entries, e)
	}
	before := lstat(t, outside)
	err := apply(t, root, opts, entries...)
	if refused && !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v, want an invalid argument", err)
	}
	if !refused && err != nil {
		t.Errorf("refused: %v", err)
	}
	wantText(t, filepath.Join(outside, "secret"), "secret")
	if st := lstat(t, filepath.Join(outside, "secret")); st.Nlink != 1 {
		t.Error("the secret was linked to")
	}
	if after := lstat(t, outside); after != before {
		t.Errorf("the directory outside changed from %+v to %+v", before, after)
	}
}

func TestWhiteoutRemove(t *testing.T) {
	root := t.TempDir()
	mustApply(t, root, archive.Options{}, file("gone"), dir("gonedir"), file("gonedir/x"), file("stays"), dir("op"), file("op/old"), dir("op/sub"), file("op/sub/old"))
	mustApply(t, root, archive.Options{},
		file(".wh.gone"), file(".wh.gonedir"), file(".wh.missing"), file("mine"), file(".wh.mine"),
		dir("op"), file("op/new"), dir("op/sub"), file("op/sub/new"), file("op/.wh..wh..opq"), file(".wh..wh.plnk"), file(".wh..wh.aufs/x"))
	wantGone(t, root+"/gone")
	wantGone(t, root+"/gonedir")
	wantGone(t, root+"/op/old")
	wantGone(t, root+"/op/sub/old")
	wantGone(t, root+"/.wh..wh.plnk")
	wantText(t, root+"/stays", "stays")
	wantText(t, root+"/mine", "mine")
	wantText(t, root+"/op/new", "op/new")
	wantText(t, root+"/op/sub/new", "op/sub/new")
}

func TestWhiteout_InReplacedDirectory(t *testing.T) {
	for _, how := range []archive.Whiteouts{archive.WhiteoutRemove, archive.WhiteoutOverlay} {
		root := t.TempDir()
		mustApply(t, root, archive.Options{Whiteouts: how}, dir("d"), file("d/below"))
		mustApply(t, root, archive.Options{Whiteouts: how}, file("d"), file("d/.wh.below"), file("d/.wh..wh..opq"))
		if st := lstat(t, root+"/d"); st.Mode&unix.S_IFMT != unix.S_IFREG {
			t.Errorf("mode %o", st.Mode)
		}
		if err := apply(t, root, archive.Options{Whiteouts: how}, file("d/.wh..")); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
		if err := apply(t, root, archive.Options{Whiteouts: how}, file("d/x")); err == nil {
			t.Error("a file was put into a file")
		}
	}
}

func TestWhiteoutOverlay(t *testing.T) {
	root := t.TempDir()
	mustApply(t, root, archive.Options{Whiteouts: archive.WhiteoutOverlay},
		file(".wh.gone"), file("mine"), file(".wh.mine"),
		dir("op"), file("op/.wh..wh..opq"), file("op/new"),
		file(".wh.again"), dir("again"), dir("first"), file(".wh.first"),
		file(".wh.implicit"), file("implicit/f"))
	if st := lstat(t, root+"/gone"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("gone: %o %x", st.Mode, st.Rdev)
	}
	wantText(t, root+"/mine", "mine")
	wantText(t, root+"/implicit/f", "implicit/f")
	for _, d := range []string{"op", "again", "first", "implicit"} {
		buf := make([]byte, 8)
		if n, err := unix.Lgetxattr(filepath.Join(root, d), "trusted.overlay.opaque", buf); err != nil || string(buf[:n]) != "y" {
			t.Errorf("%s is not opaque: %v", d, err)
		}
	}
}

func TestApply_CopiesUpFromLowerLayers(t *testing.T) {
	for way, set := range waysDown() {
		t.Run(way, func(t *testing.T) { copyUp(t, set) })
	}
}

func copyUp(t *testing.T, set func(archive.Options) archive.Options) {
	below, root := t.TempDir(), t.TempDir()
	mustApply(t, below, archive.Options{},
		tar.Header{Name: "usr", Typeflag: tar.TypeDir, Mode: 0o711, Uid: 8},
		tar.Header{Name: "usr/bin", Typeflag: tar.TypeDir, Mode: 0o1777, Gid: 9, ModTime: time.Unix(99, 0), PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}},
		tar.Header{Name: "usr/bin/tool", Mode: 0o4755, Uid: 11},
		link("bin", "usr/bin"), link("abs", "/usr/bin"), link("up", "../../../usr"))
	calls := 0
	lower := func() (*os.File, error) { calls++; return os.Open(below) }
	mustApply(t, root, set(archive.Options{Whiteouts: archive.WhiteoutOverlay, Lower: lower}),
		file("bin/a"), file("abs/b"), file("up/bin/c"), hard("tool2", "bin/tool"), file("fresh/d"))
	for _, name := range []string{"a", "b", "c"} {
		if _, err := os.Stat(filepath.Join(root, "usr/bin", name)); err != nil {
			t.Error(err)
		}
	}
	wantGone(t, root+"/bin")
	if st := lstat(t, root+"/usr"); st.Mode&0o7777 != 0o711 || st.Uid != 8 {
		t.Errorf("usr: %o %d", st.Mode, st.Uid)
	}
	if st := lstat(t, root+"/usr/bin"); st.Mode&0o7777 != 0o1777 || st.Gid != 9 || st.Mtim.Sec != 99 {
		t.Errorf("usr/bin: %o %d %v", st.Mode, st.Gid, st.Mtim)
	}
	if _, err := unix.Lgetxattr(root+"/usr/bin", "user.a", make([]byte, 8)); err != nil {
		t.Errorf("attribute of usr/bin: %v", err)
	}
	if a, b := lstat(t, root+"/tool2"), lstat(t, root+"/usr/bin/tool"); a.Ino != b.Ino || a.Mode&0o7777 != 0o4755 || a.Uid != 11 {
		t.Errorf("tool2 %+v, tool %+v", a, b)
	}
	wantText(t, root+"/tool2", "usr/bin/tool")
	if calls != 1 {
		t.Errorf("the layers below were opened %d times", calls)
	}
}

func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		opts archive.Options
		bad  bool
	}{
		"entries":       {archive.Options{MaxEntries: 1}, true},
		"entries fit":   {archive.Options{MaxEntries: 2}, false},
		"bytes":         {archive.Options{MaxBytes: 1}, true},
		"names":         {archive.Options{MaxNames: 1}, true},
		"names fit":     {archive.Options{MaxNames: 2}, false},
		"archive bytes": {archive.Options{MaxBytes: 700}, true},
		"bytes fit":     {archive.Options{MaxBytes: int64(len(pack(t, file("a"), file("b"))))}, false},
	} {
		err := apply(t, t.TempDir(), tc.opts, file("a"), file("b"))
		if tc.bad != errdefs.IsInvalidArgument(err) || !tc.bad && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCutShort(t *testing.T) {
	whole := pack(t, tar.Header{Name: "f"}, file("g"))
	for _, n := range []int{1, 100, 511, 513, 520, 1025, 1100} {
		_, err := archive.Apply(context.Background(), t.TempDir(), bytes.NewReader(whole[:n]), archive.Options{})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	garbage := bytes.Repeat([]byte("garbage!"), 1000)
	if _, err := archive.Apply(context.Background(), t.TempDir(), bytes.NewReader(garbage), archive.Options{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("garbage: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := archive.Apply(ctx, t.TempDir(), bytes.NewReader(pack(t, file("f"))), archive.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestApply_ReadsToTheEnd(t *testing.T) {
	r := bytes.NewReader(append(pack(t, file("f")), make([]byte, 100_000)...))
	if _, err := archive.Apply(context.Background(), t.TempDir(), r, archive.Options{}); err != nil || r.Len() != 0 {
		t.Errorf("%d bytes unread, %v", r.Len(), err)
	}
}

// FuzzApply applies archives to a root inside a directory, and checks that the rest of
// that directory does not change.
func FuzzApply(f *testing.F) {
	f.Add(pack(f, file("a/b"), link("l", "../.."), file("l/x"), hard("h", "l/secret"), file(".wh.a"), file("l/.wh..wh..opq")), false, false)
	f.Add(pack(f, dir("d"), file("d/../x"), file("/abs"), link("d", "/")), true, false)
	f.Add(pack(f, dir("d"), link("d/up", "../.."), link("l", "/d/up/.."), file("l/x"), file("d/up/.wh.secret")), true, true)
	f.Fuzz(func(t *testing.T, data []byte, overlay, walk bool) {
		top := t.TempDir()
		root := filepath.Join(top, "root")
		if err := errors.Join(os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(top, "secret"), []byte("s"), 0o600)); err != nil {
			t.Fatal(err)
		}
		before := lstat(t, filepath.Join(top, "secret"))
		opts := archive.Options{MaxEntries: 1000, MaxBytes: 1 << 20}
		if overlay {
			opts.Whiteouts = archive.WhiteoutOverlay
			opts.Lower = func() (*os.File, error) { return os.Open("/usr") }
		}
		if walk {
			opts = opts.Walking()
		}
		_, _ = archive.Apply(context.Background(), root, bytes.NewReader(data), opts)
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) != 2 {
			t.Errorf("outside the root: %v, %v", entries, err)
		}
		if after := lstat(t, filepath.Join(top, "secret")); after != before {
			t.Errorf("the secret changed: %+v", after)
		}
	})
}
