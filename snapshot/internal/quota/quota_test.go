package quota_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/snapshot/internal/quota"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// limited creates ROOT/name/fs, limited.
func limited(t *testing.T, root, name string, bytes int64) string {
	t.Helper()
	dir := filepath.Join(root, name)
	must(t, os.Mkdir(dir, 0o700))
	must(t, quota.Within(dir, bytes, func() error { return os.Mkdir(filepath.Join(dir, "fs"), 0o755) }))
	return filepath.Join(dir, "fs")
}

// project returns the number of a file's project.
func project(t *testing.T, path string) uint32 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	var a [7]uint32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x801c581f, uintptr(unsafe.Pointer(&a))); errno != 0 {
		t.Fatal(errno)
	}
	return a[3]
}

// TestProjects tests the life cycle of limits on both file systems with quotas.
func TestProjects(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) {
			root := on.Root
			must(t, quota.Check(root))
			fs := limited(t, root, "a", 4<<20)
			id := project(t, fs)
			if got, err := quota.Limit(fs); got != 4<<20 || err != nil {
				t.Errorf("the limit is %d, %v", got, err)
			}
			if p := project(t, filepath.Dir(fs)); p != 0 || id < 1<<30 {
				t.Errorf("the project is %d, that of the directory around it %d", id, p)
			}
			must(t, os.MkdirAll(filepath.Join(fs, "x/y"), 0o755))
			if p := project(t, filepath.Join(fs, "x/y")); p != id {
				t.Errorf("what is made in it is in project %d, not %d", p, id)
			}
			must(t, quota.Change(fs, 8<<20))
			if got, err := quota.Limit(fs); got != 8<<20 || err != nil {
				t.Errorf("the limit is now %d, %v", got, err)
			}
			must(t, quota.Release(fs))
			must(t, quota.Release(fs))
			must(t, quota.Release(filepath.Join(root, "none")))
			if got, err := quota.Limit(fs); got != 0 || err != nil {
				t.Errorf("a released limit is %d, %v", got, err)
			}
			if err := quota.Change(root, 8<<20); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("a limit for what has none: %v", err)
			}
			failed := filepath.Join(root, "failed")
			must(t, os.Mkdir(failed, 0o700))
			if err := quota.Within(failed, 4<<20, func() error { return errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("the failure came back as %v", err)
			}
			if p := project(t, failed); p != 0 {
				t.Errorf("after a failure it is in project %d", p)
			}
		})
	}
}

// A limit above ext4's maximum leaves nothing.
func TestWithin_LimitAboveMaximum(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		dir := filepath.Join(on.Root, "dir")
		must(t, os.Mkdir(dir, 0o700))
		err := quota.Within(dir, math.MaxInt64, func() error { return nil })
		if want := on.Type == "ext4"; want != errdefs.IsInvalidArgument(err) || !want && err != nil {
			t.Errorf("%s: %v", on.Type, err)
		}
		if p := project(t, dir); p != 0 {
			t.Errorf("%s: it is in project %d", on.Type, p)
		}
	}
}

// If everything is in a project already, limits are independent of it, and
// directories without a limit are not changed.
func TestWithin_InsideProjectOfAdministrator(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) {
			outer := limited(t, on.Root, "outer", 64<<20) // a number in our range, for everything below it
			id := project(t, outer)
			plain := filepath.Join(outer, "1", "fs")
			must(t, os.MkdirAll(plain, 0o700))
			must(t, quota.Release(plain))
			if got, err := quota.Limit(outer); got != 64<<20 || err != nil {
				t.Fatalf("releasing what has no limit made the outer one %d, %v", got, err)
			}
			if err := quota.Change(plain, 1<<20); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("changed what has no limit: %v", err)
			}
			fs := limited(t, outer, "2", 4<<20)
			if p := project(t, fs); p == id || p == 0 {
				t.Errorf("it is in project %d", p)
			}
			if p := project(t, filepath.Dir(fs)); p != id {
				t.Errorf("the directory around it is in project %d, not %d", p, id)
			}
			must(t, os.Rename(filepath.Dir(fs), filepath.Join(outer, "3")))
		})
	}
}

// It draws numbers in parallel, from a few more than are needed, and compares.
func TestWithin_ParallelCalls_ShareNoProject(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) {
			var mu sync.Mutex
			seen := make(map[uint32]string)
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for j := range 20 {
						name := fmt.Sprintf("%d-%d", i, j)
						dir := filepath.Join(on.Root, name)
						err := os.Mkdir(dir, 0o700)
						if err == nil {
							err = quota.WithinFew(dir, 200, 1<<20, func() error { return os.Mkdir(filepath.Join(dir, "fs"), 0o700) })
						}
						if err != nil {
							t.Error(err)
							return
						}
						id := project(t, filepath.Join(dir, "fs"))
						mu.Lock()
						if other, ok := seen[id]; ok || id == 0 {
							t.Errorf("%s and %s have project %d", name, other, id)
						}
						seen[id] = name
						mu.Unlock()
					}
				})
			}
			wg.Wait()
		})
	}
}

// A number is not used while a deleted file is open, while a limit is left, nor by
// a caller that has no other to draw.
func TestWithin_SkipsNumbersInUse(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) {
			try := func(name string) error {
				dir := filepath.Join(on.Root, name)
				must(t, os.Mkdir(dir, 0o700))
				return quota.WithinFew(dir, 1, 1<<20, func() error { return os.Mkdir(filepath.Join(dir, "fs"), 0o700) })
			}
			must(t, try("a"))
			fs := filepath.Join(on.Root, "a", "fs")
			if err := try("b"); !errdefs.IsUnavailable(err) {
				t.Fatalf("took a number that is another's: %v", err)
			}
			f, err := os.Create(filepath.Join(fs, "open"))
			must(t, err)
			must(t, quota.Release(fs))
			must(t, os.RemoveAll(filepath.Dir(fs)))
			if err := try("c"); !errdefs.IsUnavailable(err) {
				t.Errorf("took the number of a file that is open: %v", err)
			}
			must(t, f.Close())
			freed := try("d") // xfs frees deleted files a little later
			again := time.NewTicker(10 * time.Millisecond)
			defer again.Stop()
			for i := 0; errdefs.IsUnavailable(freed) && i < 6000; i++ {
				<-again.C
				must(t, os.RemoveAll(filepath.Join(on.Root, "d")))
				freed = try("d")
			}
			must(t, freed)
			must(t, os.RemoveAll(filepath.Join(on.Root, "d"))) // and the limit remains
			if err := try("e"); !errdefs.IsUnavailable(err) {
				t.Errorf("took a number that has a limit: %v", err)
			}
		})
	}
}

// The error names the missing feature.
func TestWithin_WithoutProjectQuotas(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for fsType, want := range map[string]string{
		"xfs": "project quotas", "ext4": "project quotas", "btrfs": "project quotas",
	} {
		root := snapshottest.Filesystem(t, fsType, 512, "", "-q")
		refused(t, root, fsType, want)
	}
	refused(t, "/run", "tmpfs", "project quotas")
	// Counted, and not enforced.
	refused(t, snapshottest.Filesystem(t, "xfs", 512, "pqnoenforce", "-q"), "xfs", "project quotas")
	// Prepared for quotas, and mounted without.
	refused(t, snapshottest.Filesystem(t, "ext4", 64, "", "-q", "-O", "quota,project", "-E", "quotatype=usrquota"), "ext4", "project quotas")
}

func refused(t *testing.T, root, fsType, want string) {
	t.Helper()
	dir := filepath.Join(root, "dir")
	must(t, os.Mkdir(dir, 0o700))
	err := quota.Within(dir, 1<<20, func() error { t.Error("filled nevertheless"); return nil })
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%s: %v, want a failed precondition", fsType, err)
		return
	}
	for _, part := range []string{root, fsType, want} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %q does not say %q", fsType, err, part)
		}
	}
	if err := quota.Release(dir); err != nil {
		t.Errorf("%s: release where there are no limits: %v", fsType, err)
	}
}
