package inroot_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/inroot"
)

// walking is an Opener whose system call returns an errno.
func walking(errno unix.Errno) *inroot.Opener {
	return &inroot.Opener{Kernel: func(int, string, *unix.OpenHow) (int, error) { return -1, errno }}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree creates a root with links of every kind, next to a directory outside.
func tree(t testing.TB) (root int, outside string) {
	t.Helper()
	base := t.TempDir()
	top, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, d := range []string{"a/b/c", "d", "usr/lib", "outside"} {
		must(t, os.MkdirAll(filepath.Join(top, d), 0o755))
	}
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	for _, f := range []string{"f", "a/f", "a/b/f", "usr/lib/f"} {
		must(t, os.WriteFile(filepath.Join(top, f), []byte(f), 0o644))
	}
	must(t, unix.Mkfifo(filepath.Join(top, "fifo"), 0o600))
	chain := "f"
	for i := range 42 { // l39 goes through 40 links, l40 through one too many
		must(t, os.Symlink(chain, filepath.Join(top, fmt.Sprint("l", i))))
		chain = fmt.Sprint("l", i)
	}
	for name, to := range map[string]string{
		"out": outside, "up": "../../../../outside", "a/up": "..", "a/b/abs": "/a", "lib": "usr/lib", "a/lib": "/lib/", "self": ".",
		"loop": "loop", "x": "y", "y": "x", "tof": "a/f", "tofslash": "a/f/", "dangling": "nowhere/at/all", "rooted": "/", "a/b/climb": "../../d/../usr",
		"slashes": "a//b///c", "filedot": "f/.", "filedots": "f/..",
	} {
		must(t, os.Symlink(to, filepath.Join(top, name)))
	}
	root, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(root)) })
	return root, outside
}

// found describes the result of an opener: an inode, or an errno.
func found(t testing.TB, o *inroot.Opener, root int, path string, flags int) string {
	t.Helper()
	fd, err := o.Open(root, path, flags)
	if err != nil {
		var errno unix.Errno
		if !errors.As(err, &errno) {
			t.Fatalf("%q: no errno in %v", path, err)
		}
		return unix.ErrnoName(errno)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	must(t, err)
	cloexec, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	must(t, err)
	must(t, unix.Close(fd))
	return fmt.Sprintf("%o %d, flags %#x, close-on-exec %d", st.Mode, st.Ino, got&^(unix.O_NOFOLLOW|unix.O_DIRECTORY), cloexec)
}

// The walk finds the same as the kernel, and fails in the same way, on random paths.
func TestWalk_FindsSameAsKernel(t *testing.T) {
	root, _ := tree(t)
	parts := []string{
		"a", "b", "c", "d", "f", "usr", "lib", "..", "..", ".", "", "out", "up", "abs", "self", "loop", "x", "tof", "tofslash",
		"dangling", "rooted", "climb", "slashes", "filedot", "filedots", "missing", "secret", "outside", "l38", "l39", "l40", "l41", "fifo",
	}
	r := rand.New(rand.NewPCG(1, 2))
	paths := []string{"", "/", "//", ".", "..", "l39", "l40", strings.Repeat("a/../", 818) + "a", strings.Repeat("a/../", 819), strings.Repeat("n", 256)}
	for range 5_000 {
		var path []string
		for range 1 + r.IntN(6) {
			path = append(path, parts[r.IntN(len(parts))])
		}
		paths = append(paths, strings.Join(path, "/"))
	}
	var kernelErr error // of the kernel itself, which the Opener does not always use
	kernel, walk := &inroot.Opener{Kernel: func(dir int, path string, how *unix.OpenHow) (fd int, err error) {
		fd, err = unix.Openat2(dir, path, how)
		kernelErr = err
		return fd, err
	}}, walking(unix.ENOSYS)
	ask := func(path string, flags int) string {
		t.Helper()
		if by := found(t, kernel, root, path, flags); !errors.Is(kernelErr, unix.ELOOP) {
			return by
		}
		return "ELOOP"
	}
	seen := make(map[string]int)
	for _, path := range paths {
		for _, flags := range []int{
			unix.O_PATH, unix.O_PATH | unix.O_DIRECTORY, unix.O_PATH | unix.O_NOFOLLOW, unix.O_PATH | unix.O_NOFOLLOW | unix.O_DIRECTORY,
			unix.O_RDONLY | unix.O_NONBLOCK, unix.O_RDONLY | unix.O_DIRECTORY, unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW,
		} {
			want, got := ask(path, flags), found(t, walk, root, path, flags)
			for range 1000 { // a concurrent mount makes it count links twice
				if want != "ELOOP" || got == want {
					break
				}
				want = ask(path, flags)
			}
			if got != want {
				t.Errorf("%.200q with flags %#x: %s, the kernel finds %s", path, flags, got, want)
			}
			seen[strings.Fields(want)[0]]++
		}
	}
	for _, kind := range []string{"ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "40755", "100644", "120777", "10600"} {
		if seen[kind] == 0 {
			t.Errorf("no path led to %s: %v", kind, seen)
		}
	}
}

// Only a kernel without support is not called again.
func TestOpen_WalksWithoutKernelSupport(t *testing.T) {
	root, _ := tree(t)
	for errno, want := range map[unix.Errno]string{
		unix.ENOSYS: "", unix.EPERM: "", unix.EACCES: "EACCES", unix.EINVAL: "EINVAL", unix.EAGAIN: "EAGAIN",
	} {
		calls := 0
		o := &inroot.Opener{Kernel: func(int, string, *unix.OpenHow) (int, error) { calls++; return -1, errno }}
		for range 2 {
			got := found(t, o, root, "lib/f", unix.O_PATH)
			if want == "" && !strings.HasPrefix(got, "100644") || want != "" && got != want {
				t.Errorf("%v: %s", errno, got)
			}
		}
		if want == "" && calls != 1 || want != "" && calls < 2 {
			t.Errorf("%v: asked %d times", errno, calls)
		}
	}
}

// The kernel may find too many links in a path that has not: see Opener.Open.
func TestOpen_LinksCountedTwiceByKernel(t *testing.T) {
	root, _ := tree(t)
	calls := 0
	o := &inroot.Opener{Kernel: func(int, string, *unix.OpenHow) (int, error) { calls++; return -1, unix.ELOOP }}
	for path, want := range map[string]string{"l39": "100644", "l40": "ELOOP", "loop": "ELOOP", "a/b/../f": "100644"} {
		if got := found(t, o, root, path, unix.O_PATH); strings.Fields(got)[0] != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if calls != 4 {
		t.Errorf("%d system calls for 4 paths", calls)
	}
}

// A path that leads deeper than any path can be long is refused before descriptors run out, and leaves none.
func TestWalk_BoundsDepth_LeavesNoDescriptors(t *testing.T) {
	top := t.TempDir()
	root, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer func() { must(t, unix.Close(root)) }()
	at, err := unix.Dup(root)
	must(t, err)
	for range 2100 {
		must(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_PATH, 0)
		must(t, errors.Join(err, unix.Close(at)))
		at = next
	}
	must(t, unix.Close(at))
	must(t, os.Symlink(strings.Repeat("d/", 1500)+".", filepath.Join(top, "deep")))
	before := descriptors(t)
	o := walking(unix.ENOSYS)
	for path, want := range map[string]string{
		"deep":                                   "40755",
		"deep/" + strings.Repeat("d/", 500):      "40755",
		"deep/" + strings.Repeat("d/", 600):      "ENAMETOOLONG",
		"deep/" + strings.Repeat("d/", 10) + "x": "ENOENT",
	} {
		if got := found(t, o, root, path, unix.O_PATH); strings.Fields(got)[0] != want {
			t.Errorf("%.10s and so on, %d bytes: %s, want %s", path, len(path), got, want)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, before there were %d", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// While names are exchanged, the walk never opens anything outside.
func TestWalk_UnderRace_StaysInside(t *testing.T) {
	root, outside := tree(t)
	top := filepath.Join(filepath.Dir(outside), "root")
	var secret unix.Stat_t
	must(t, unix.Stat(filepath.Join(outside, "secret"), &secret))
	must(t, os.WriteFile(filepath.Join(top, "a/b/secret"), []byte("inside"), 0o644))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, pair := range [][2]string{{"a/b", "out"}, {"a", "up"}, {"a/b/c", "d"}} {
				select {
				case <-stop:
					return
				default:
					// One of them may be missing at this moment.
					_ = unix.Renameat2(root, pair[0], root, pair[1], unix.RENAME_EXCHANGE)
				}
			}
		}
	})
	o := walking(unix.EPERM)
	opened := 0
	for range 5_000 {
		for _, path := range []string{"a/b/secret", "a/b/c/../../../../outside/secret", "out/secret", "up/secret", "d/../secret"} {
			fd, err := o.Open(root, path, unix.O_PATH)
			if err != nil {
				continue
			}
			var st unix.Stat_t
			must(t, unix.Fstat(fd, &st))
			must(t, unix.Close(fd))
			opened++
			if st.Ino == secret.Ino && st.Dev == secret.Dev {
				t.Fatalf("%s led outside", path)
			}
		}
	}
	close(stop)
	wg.Wait()
	if opened == 0 {
		t.Error("nothing could be opened at all")
	}
}
