package snapshottest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/internal/quota"
)

// RunLimits tests the limits of a snapshot.Limited whose Root is on a file system with project quotas.
func RunLimits(t *testing.T, cfg Config) {
	for name, test := range map[string]func(*limits){
		"MoreDoesNotFit":          moreDoesNotFit,
		"CopiesFromBelowCount":    copiesFromBelowCount,
		"LimitsChange":            limitsChange,
		"LimitsSurviveReopen":     limitsSurviveReopen,
		"RemovalReleases":         removalReleases,
		"CleanupReleases":         cleanupReleases,
		"BadLimitsAreRefused":     badLimitsAreRefused,
		"UsageIsTheSame":          usageIsTheSame,
		"LimitedOnesBecomeLayers": limitedOnesBecomeLayers,
	} {
		t.Run(name, func(t *testing.T) {
			root := cfg.Root(t)
			d, err := cfg.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			s := &suite{Config: cfg, t: t, d: d, root: root}
			s.atOpen = s.entries()
			test(&limits{s})
			if err := s.d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// RunNoLimits tests the errors of a snapshot.Limited on a file system without limits.
func RunNoLimits(t *testing.T, cfg Config) {
	root := cfg.Root(t)
	d, err := cfg.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	l := &limits{&suite{Config: cfg, t: t, d: d, root: root}}
	l.atOpen = l.entries()
	if err := l.limited().PrepareLimited(context.Background(), 1, nil, 4<<20); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("want a failed precondition, not %v", err)
	}
	l.empty()
	l.prepare(1, nil, snapshot.KindActive)
	if err := l.limited().SetLimit(context.Background(), 1, 4<<20); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("want a failed precondition, not %v", err)
	}
}

type limits struct{ *suite }

func (l *limits) limited() snapshot.Limited { return l.d.(snapshot.Limited) }

func (l *limits) prepareLimited(id uint64, parents []uint64, bytes int64) {
	l.t.Helper()
	if err := l.limited().PrepareLimited(context.Background(), id, parents, bytes); err != nil {
		l.t.Fatal(err)
	}
}

// fits reports whether a file of so many bytes can be written to a snapshot, and removes it again.
func (l *limits) fits(id uint64, parents []uint64, bytes int) (ok bool) {
	l.t.Helper()
	l.mounted(id, parents, snapshot.KindActive, func(dir string) {
		path := filepath.Join(dir, "probe")
		err := ordinarily(func() error { return written(path, os.O_CREATE|os.O_WRONLY, bytes) })
		ok = l.full(err)
		if err := os.Remove(path); err != nil {
			l.t.Error(err)
		}
	})
	return ok
}

// full reports whether an error is that of a limit; others but nil fail the test.
func (l *limits) full(err error) bool {
	l.t.Helper()
	if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		l.t.Errorf("writing gave %v", err)
	}
	return err == nil
}

// written writes to a file and syncs it.
func written(path string, flags, bytes int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, bytes))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ordinarily calls f without the capability to exceed limits, as containers run.
func ordinarily(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
		if err == nil {
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func moreDoesNotFit(l *limits) {
	l.layer(1, nil, map[string]string{"a": "1"})
	l.prepareLimited(2, []uint64{1}, 4<<20)
	l.prepare(3, []uint64{1}, snapshot.KindActive)
	if l.fits(2, []uint64{1}, 8<<20) {
		l.t.Error("8 MiB fit a limit of 4")
	}
	if !l.fits(2, []uint64{1}, 2<<20) {
		l.t.Error("2 MiB do not fit a limit of 4")
	}
	if !l.fits(3, []uint64{1}, 8<<20) {
		l.t.Error("the sibling is limited as well")
	}
}

func copiesFromBelowCount(l *limits) {
	l.prepare(1, nil, snapshot.KindActive)
	l.mounted(1, nil, snapshot.KindActive, func(dir string) {
		if err := written(filepath.Join(dir, "big"), os.O_CREATE|os.O_WRONLY, 6<<20); err != nil {
			l.t.Fatal(err)
		}
	})
	if _, err := l.d.Commit(context.Background(), 1); err != nil {
		l.t.Fatal(err)
	}
	if l.Copies {
		err := l.limited().PrepareLimited(context.Background(), 2, []uint64{1}, 4<<20)
		if !errdefs.IsResourceExhausted(err) {
			l.t.Errorf("a copy of 6 MiB into a limit of 4: %v", err)
		}
		if _, err := l.d.Usage(context.Background(), 2); !errdefs.IsNotFound(err) {
			l.t.Errorf("a refused snapshot exists: %v", err)
		}
		return
	}
	l.prepareLimited(2, []uint64{1}, 4<<20)
	l.mounted(2, []uint64{1}, snapshot.KindActive, func(dir string) {
		err := ordinarily(func() error { return written(filepath.Join(dir, "big"), os.O_APPEND|os.O_WRONLY, 1) })
		if l.full(err) {
			l.t.Error("6 MiB were copied up into a limit of 4")
		}
	})
}

func limitsChange(l *limits) {
	l.prepareLimited(1, nil, 4<<20)
	for _, step := range []struct {
		limit int64
		bytes int
		want  bool
	}{{16 << 20, 8 << 20, true}, {2 << 20, 3 << 20, false}, {0, 32 << 20, true}, {8 << 20, 9 << 20, false}} {
		if err := l.limited().SetLimit(context.Background(), 1, step.limit); err != nil {
			l.t.Fatal(err)
		}
		if got := l.fits(1, nil, step.bytes); got != step.want {
			l.t.Errorf("with a limit of %d, %d bytes fit: %v", step.limit, step.bytes, got)
		}
	}
	if err := l.limited().SetLimit(context.Background(), 9, 4<<20); !errdefs.IsNotFound(err) {
		l.t.Errorf("limit of a missing snapshot: %v", err)
	}
	l.prepare(2, nil, snapshot.KindActive)
	if err := l.limited().SetLimit(context.Background(), 2, 4<<20); !errdefs.IsFailedPrecondition(err) {
		l.t.Errorf("limit of a snapshot created without: %v", err)
	}
}

func limitsSurviveReopen(l *limits) {
	l.prepareLimited(1, nil, 4<<20)
	if err := l.d.Close(); err != nil {
		l.t.Fatal(err)
	}
	var err error
	if l.d, err = l.Open(l.root); err != nil {
		l.t.Fatal(err)
	}
	if l.fits(1, nil, 8<<20) {
		l.t.Error("8 MiB fit a limit of 4")
	}
	l.prepareLimited(2, nil, 4<<20)
	if a, b := l.project(1), l.project(2); a == b || a == 0 || b == 0 {
		l.t.Errorf("projects %d and %d", a, b)
	}
	id := l.project(1)
	if err := l.d.Remove(context.Background(), 1); err != nil {
		l.t.Fatal(err)
	}
	l.released(id)
}

func removalReleases(l *limits) {
	l.prepareLimited(1, nil, 4<<20)
	id := l.project(1)
	l.mounted(1, nil, snapshot.KindActive, func(string) { // it may still be in use
		if err := l.d.Remove(context.Background(), 1); err != nil {
			l.t.Error(err)
		}
	})
	l.released(id)
	l.prepareLimited(1, nil, 4<<20)
	id = l.project(1)
	l.prepareLimited(1, nil, 4<<20) // replaces the remains of a crash
	l.released(id)
	l.prepare(1, nil, snapshot.KindActive)
	if !l.fits(1, nil, 8<<20) {
		l.t.Error("the limit of an earlier snapshot of that number is left")
	}
}

func cleanupReleases(l *limits) {
	for id := range uint64(2) {
		l.prepareLimited(id+1, nil, 4<<20)
	}
	one, two := l.project(1), l.project(2)
	three := l.crashed(filepath.Join(l.root, ".rm-GONE-3-1"))
	if err := unix.Rename(filepath.Join(l.root, "2"), filepath.Join(l.root, ".rm-GONE-2-1")); err != nil {
		l.t.Fatal(err)
	}
	removed, err := l.d.Cleanup(context.Background(), func(uint64) bool { return false })
	if err != nil || len(removed) != 1 {
		l.t.Errorf("removed %v, %v", removed, err)
	}
	l.released(one)
	l.released(two)
	l.released(three)
	l.empty()
}

// crashed creates the remains of a crash after a limited directory was created empty, and returns its
// project.
func (l *limits) crashed(dir string) uint32 {
	l.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = quota.Within(dir, 4<<20, func() error { runtime.Goexit(); return nil }) // it does not return
	}()
	<-done
	return l.projectOf(dir)
}

func badLimitsAreRefused(l *limits) {
	for _, bytes := range []int64{0, -1, 1, snapshot.MinLimit - 1, -1 << 63} {
		if err := l.limited().PrepareLimited(context.Background(), 1, nil, bytes); !errdefs.IsInvalidArgument(err) {
			l.t.Errorf("%d: %v", bytes, err)
		}
	}
	if err := l.limited().PrepareLimited(context.Background(), 1, []uint64{9}, 4<<20); !errdefs.IsNotFound(err) {
		l.t.Errorf("missing parent: %v", err)
	}
	if err := l.limited().PrepareLimited(context.Background(), 0, nil, 4<<20); !errdefs.IsInvalidArgument(err) {
		l.t.Errorf("number 0: %v", err)
	}
	l.empty()
	l.prepareLimited(1, nil, 1<<62)
	if err := l.limited().SetLimit(context.Background(), 1, -5); !errdefs.IsInvalidArgument(err) {
		l.t.Errorf("a negative limit: %v", err)
	}
}

func usageIsTheSame(l *limits) {
	l.prepareLimited(1, nil, 8<<20)
	l.prepare(2, nil, snapshot.KindActive)
	var got [2]snapshot.Usage
	for i := range got {
		id := uint64(i + 1)
		l.mounted(id, nil, snapshot.KindActive, func(dir string) {
			if err := written(filepath.Join(dir, "a"), os.O_CREATE|os.O_WRONLY, 1<<20); err != nil {
				l.t.Fatal(err)
			}
		})
		var err error
		if got[i], err = l.d.Commit(context.Background(), id); err != nil {
			l.t.Fatal(err)
		}
	}
	if got[0] != got[1] {
		l.t.Errorf("limited %+v, not limited %+v", got[0], got[1])
	}
}

func limitedOnesBecomeLayers(l *limits) {
	l.prepareLimited(1, nil, 4<<20)
	l.mounted(1, nil, snapshot.KindActive, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o644); err != nil {
			l.t.Fatal(err)
		}
	})
	if _, err := l.d.Commit(context.Background(), 1); err != nil {
		l.t.Fatal(err)
	}
	l.prepare(2, []uint64{1}, snapshot.KindActive)
	l.mounted(2, []uint64{1}, snapshot.KindActive, func(dir string) { l.wantFile(dir, "a", "1") })
	if !l.fits(2, []uint64{1}, 8<<20) {
		l.t.Error("a child of a limited snapshot is limited")
	}
}

// project returns the number of the project of a snapshot's files.
func (l *limits) project(id uint64) uint32 {
	l.t.Helper()
	return l.projectOf(filepath.Join(l.root, fmt.Sprint(id), "fs"))
}

func (l *limits) projectOf(dir string) uint32 {
	l.t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var a [7]uint32 // struct fsxattr
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x801c581f, uintptr(unsafe.Pointer(&a))); errno != 0 {
		l.t.Fatal(errno)
	}
	return a[3]
}

// released checks that a project has no limit.
func (l *limits) released(project uint32) {
	l.t.Helper()
	f, err := os.Open(l.root)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var q [9]uint64 // struct if_dqblk
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), 0x800007<<8|2, uintptr(project), uintptr(unsafe.Pointer(&q)), 0, 0)
	if errno != 0 && !errors.Is(errno, unix.ENOENT) {
		l.t.Fatal(errno)
	}
	if project == 0 || q[0] != 0 {
		l.t.Errorf("project %d has a limit of %d KiB", project, q[0])
	}
}
