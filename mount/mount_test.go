package mount

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// layers creates n directories below a new directory called name, each with a file named
// after it, and returns the mount of all of them.
func layers(t *testing.T, name string, n int, writable bool) (dir string, m Mount) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	var lower []string
	for i := n; i > 0; i-- {
		l := filepath.Join(dir, fmt.Sprint(i), "fs")
		mustMkdir(t, l)
		mustWrite(t, filepath.Join(l, fmt.Sprint("file", i)))
		lower = append(lower, EscapeOverlayPath(l))
	}
	m = Mount{Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=" + strings.Join(lower, ":")}}
	if writable {
		mustMkdir(t, filepath.Join(dir, "up", "fs"))
		mustMkdir(t, filepath.Join(dir, "up", "work"))
		m.Options = append(m.Options,
			"upperdir="+EscapeOverlayPath(filepath.Join(dir, "up", "fs")),
			"workdir="+EscapeOverlayPath(filepath.Join(dir, "up", "work")))
	}
	return dir, m
}

func mustMkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mounted attaches mounts at a new directory and removes them at the end of the test.
func mounted(t *testing.T, ms ...Mount) string {
	t.Helper()
	dir := t.TempDir()
	if err := All(ms, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestOverlay(t *testing.T) {
	for _, tc := range []struct {
		name   string
		dir    string
		layers int
	}{
		{"two", "plain", 2},
		{"over a page", "plain", 120},
		{"over a page, over 256 bytes each", strings.Repeat("x", 250), 120},
		{"characters that separate", `a:b,c\d`, 3},
		{"characters that separate, over a page", `a:b,c\d`, 120},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, m := layers(t, tc.dir, tc.layers, true)
			root := mounted(t, m)
			for _, i := range []int{1, tc.layers} {
				if !exists(filepath.Join(root, fmt.Sprint("file", i))) {
					t.Errorf("file%d is not in the overlay", i)
				}
			}
			mustWrite(t, filepath.Join(root, "new"))
			if !exists(filepath.Join(dir, "up", "fs", "new")) {
				t.Error("a new file did not reach the upper directory")
			}
		})
	}
}

func TestOverlay_WithoutCommonPath_UsesDescriptors(t *testing.T) {
	// Every layer is at the top, so no prefix can be cut and the page overflows.
	top, err := os.MkdirTemp("/", "cleat-mount-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	_, m := layers(t, "x", 60, false)
	mustWrite(t, filepath.Join(top, "fromtop"))
	m.Options[1] += ":" + top
	root := mounted(t, m)
	if !exists(filepath.Join(root, "fromtop")) || !exists(filepath.Join(root, "file60")) {
		t.Error("layers are missing")
	}
}

func TestBind_ReadOnly_KeepsFlagsOfSource(t *testing.T) {
	src := mounted(t, Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=1m"}})
	mustWrite(t, filepath.Join(src, "f"))
	root := mounted(t, Mount{Type: "bind", Source: src, Options: []string{"bind", "ro", "rprivate"}})
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV
	if st.Flags&want != want {
		t.Errorf("flags are %#x, which lack some of %#x", st.Flags, want)
	}
	if err := os.WriteFile(filepath.Join(root, "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing gave %v, want EROFS", err)
	}
	mustWrite(t, filepath.Join(src, "still-writable"))
}

func TestBind_WithoutSetattr_Remounts(t *testing.T) {
	src := mounted(t, Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=1m"}})
	root := mounted(t, Mount{Type: "bind", Source: src})
	o, err := parse(Mount{Type: "bind", Options: []string{"ro"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := remountBind(root, "", o); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&unix.ST_RDONLY == 0 || st.Flags&unix.ST_NOSUID == 0 {
		t.Errorf("flags are %#x", st.Flags)
	}
}

func TestBind_Recursive(t *testing.T) {
	src := t.TempDir()
	mustMkdir(t, filepath.Join(src, "sub"))
	if err := All([]Mount{{Type: "tmpfs", Source: "tmpfs", Target: "sub"}}, src); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = UnmountAll(filepath.Join(src, "sub"), 0) })
	mustWrite(t, filepath.Join(src, "sub", "f"))
	for opt, want := range map[string]bool{"bind": false, "rbind": true, "rro": true} {
		opts := []string{opt}
		if opt == "rro" {
			opts = []string{"rbind", "rro"}
		}
		root := t.TempDir()
		if err := All([]Mount{{Source: src, Options: opts}}, root); err != nil {
			t.Fatal(err)
		}
		if got := exists(filepath.Join(root, "sub", "f")); got != want {
			t.Errorf("%s: the mount below is visible: %v, want %v", opt, got, want)
		}
		if opt == "rro" {
			if err := os.WriteFile(filepath.Join(root, "sub", "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("rro: writing below gave %v, want EROFS", err)
			}
		}
		if err := UnmountAll(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

func TestAll_UndoesOnFailure(t *testing.T) {
	root := t.TempDir()
	mustMkdir(t, filepath.Join(root, "a"))
	err := All([]Mount{
		{Type: "tmpfs", Source: "tmpfs", Target: "a"},
		{Type: "tmpfs", Source: "tmpfs", Target: "a"},
		{Type: "tmpfs", Source: "tmpfs", Target: "missing"},
	}, root)
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want that the target does not exist", err)
	}
	if points, err := Under(root); err != nil || len(points) != 0 {
		t.Errorf("left behind: %v, %v", points, err)
	}
}

func TestAll_TargetStaysInRoot(t *testing.T) {
	outside := t.TempDir()
	root := t.TempDir()
	mustMkdir(t, filepath.Join(root, outside)) // the target of an absolute link
	if err := os.Symlink(outside, filepath.Join(root, "abs")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"abs", "../../../../../../" + outside} {
		if err := All([]Mount{{Type: "tmpfs", Source: "tmpfs", Target: target}}, root); err != nil {
			t.Fatal(err)
		}
		if points, err := Under(outside); err != nil || len(points) != 0 {
			t.Errorf("%s: mounted outside: %v, %v", target, points, err)
		}
		if err := UnmountAll(filepath.Join(root, outside), 0); err != nil {
			t.Error(err)
		}
	}
	if points, err := Under(root); err != nil || len(points) != 0 {
		t.Errorf("left behind: %v, %v", points, err)
	}
}

func TestUnmountAll(t *testing.T) {
	root := t.TempDir()
	if err := UnmountAll(filepath.Join(root, "missing"), 0); err != nil {
		t.Errorf("missing target: %v", err)
	}
	if err := UnmountAll(root, 0); err != nil {
		t.Errorf("not mounted: %v", err)
	}
	tmp := Mount{Type: "tmpfs", Source: "tmpfs"}
	if err := All([]Mount{tmp, tmp, tmp}, root); err != nil {
		t.Fatal(err)
	}
	if err := UnmountAll(root, 0); err != nil {
		t.Fatal(err)
	}
	if err := All([]Mount{tmp}, root); err != nil {
		t.Fatal(err)
	}
	busy, err := os.Create(filepath.Join(root, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	if err := UnmountAll(root, 0); err != nil {
		t.Errorf("busy: %v", err)
	}
	if points, err := Under(root); err != nil || len(points) != 0 {
		t.Errorf("left behind: %v, %v", points, err)
	}
}

func TestUnder_DeepestFirst(t *testing.T) {
	root := filepath.Join(t.TempDir(), "with blank")
	mustMkdir(t, root)
	tmp := Mount{Type: "tmpfs", Source: "tmpfs"}
	at := root
	var want []string
	for range 3 {
		if err := All([]Mount{tmp}, at); err != nil {
			t.Fatal(err)
		}
		want = append([]string{at}, want...)
		at = filepath.Join(at, "x")
		mustMkdir(t, at)
	}
	got, err := Under(root)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, p := range got {
		if err := UnmountAll(p, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestDetached(t *testing.T) {
	bindSource := t.TempDir()
	mustWrite(t, filepath.Join(bindSource, "file1"))
	_, short := layers(t, "short", 3, false)
	_, long := layers(t, strings.Repeat("y", 250), 3, false)
	_, odd := layers(t, `a:b,c\d`, 3, true)
	for name, m := range map[string]Mount{
		"bind":                    {Type: "bind", Source: bindSource, Options: []string{"ro"}},
		"overlay":                 short,
		"overlay with long paths": long,
		"overlay with odd paths":  odd,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Detached([]Mount{m})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
			fd, err := unix.Openat2(int(f.Fd()), "/../file1", &how)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(fd)
		})
	}
	if _, err := Detached(nil); err == nil {
		t.Error("no mount at all was accepted")
	}
}

func TestViaDirectory(t *testing.T) {
	_, m := layers(t, "l", 3, false)
	o, err := parse(m)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := viaDirectory(m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	if err := unix.Faccessat(fd, "file2", unix.F_OK, 0); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		m     Mount
		flags uintptr
		data  string
		bad   bool
	}{
		{m: Mount{Type: "tmpfs", Options: []string{"ro", "rw", "nosuid", "size=1m", "mode=755"}}, flags: unix.MS_NOSUID, data: "size=1m,mode=755"},
		{m: Mount{Type: "tmpfs", Options: []string{"noatime", "relatime"}}, flags: unix.MS_RELATIME},
		{m: Mount{Type: "tmpfs", Options: []string{"rro"}}, flags: unix.MS_RDONLY},
		{m: Mount{Type: "bind", Options: []string{"size=1m"}}, bad: true},
		{m: Mount{Type: "bind", Options: []string{"loop"}}, bad: true},
		{m: Mount{Type: "ext4", Options: []string{"a\x00b"}}, bad: true},
	} {
		o, err := parse(tc.m)
		if tc.bad {
			var invalid interface{ InvalidParameter() }
			if !errors.As(err, &invalid) {
				t.Errorf("%v: got %v, want an invalid argument", tc.m, err)
			}
			continue
		}
		if err != nil || o.flags != tc.flags || o.dataString() != tc.data {
			t.Errorf("%v: got %#x %q %v", tc.m, o.flags, o.dataString(), err)
		}
	}
}

// Lines of every length are parsed, with all fields before the options at their end.
func TestShortLines_LongOptions(t *testing.T) {
	const line = `36 35 98:0 / /mnt\040x rw,noatime master:1 - overlay source rw,lowerdir=`
	for _, n := range []int{0, maxLine - len(line), maxLine, 64 << 10, 1 << 20} {
		table := line + strings.Repeat("l", n) + "\n" + line + "\n"
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(table), "torn": iotest.OneByteReader(strings.NewReader(table))} {
			mounts, err := mountinfo.GetMountsFromReader(&shortLines{r: r}, nil)
			if err != nil || len(mounts) != 2 {
				t.Fatalf("%d bytes, %s: %v, %v", n, name, mounts, err)
			}
			for _, m := range mounts {
				if m.Mountpoint != "/mnt x" || m.FSType != "overlay" || m.Source != "source" {
					t.Errorf("%d bytes, %s: %+v", n, name, m)
				}
			}
		}
	}
}

func TestContaining_ReturnsVisibleMount(t *testing.T) {
	root := filepath.Join(t.TempDir(), "with blank")
	mustMkdir(t, root)
	below, err := Containing(root)
	if err != nil || below.Point == root {
		t.Fatalf("before: %+v, %v", below, err)
	}
	for _, source := range []string{"first", "second"} {
		if err := All([]Mount{{Type: "tmpfs", Source: source}}, root); err != nil {
			t.Fatal(err)
		}
	}
	mustMkdir(t, filepath.Join(root, "x"))
	mustMkdir(t, root+"2") // whose name begins like that of the mount
	for path, want := range map[string]Point{
		root: {root, "tmpfs", "second"}, filepath.Join(root, "x"): {root, "tmpfs", "second"}, root + "2": below, filepath.Dir(root): below,
	} {
		if got, err := Containing(path); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", path, got, err, want)
		}
	}
	if _, err := Containing(filepath.Join(root, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing path: %v", err)
	}
	if err := UnmountAll(root, 0); err != nil {
		t.Error(err)
	}
}
