// Package snapshottest is the conformance suite of snapshot drivers.
package snapshottest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Config describes a driver to the suite.
type Config struct {
	// Open opens the driver in an existing directory; it is called again on the same one to
	// simulate a restart.
	Open func(root string) (snapshot.Driver, error)
	// Root creates an empty directory for a driver; nil means t.TempDir.
	Root func(t *testing.T) string
	// Copies marks that a snapshot has a copy of its parents' content, on disk as well.
	Copies bool
	// Ordered marks that removing a snapshot before its children is a failed precondition.
	Ordered bool
}

// Run tests a driver.
func Run(t *testing.T, cfg Config) {
	if cfg.Root == nil {
		cfg.Root = func(t *testing.T) string { return t.TempDir() }
	}
	for name, test := range map[string]func(*testing.T, *suite){
		"LayersStack":             layersStack,
		"DeletionsHide":           deletionsHide,
		"ViewsAreReadOnly":        viewsAreReadOnly,
		"RemoveIsIdempotent":      removeIsIdempotent,
		"PrepareReplacesRemains":  prepareReplacesRemains,
		"CleanupKeepsTheLive":     cleanupKeepsTheLive,
		"UsageCountsOnce":         usageCountsOnce,
		"RootKeepsModeAndOwner":   rootKeepsModeAndOwner,
		"BadArgumentsAreRefused":  badArguments,
		"CancelledLeavesNothing":  cancelled,
		"SurvivesReopen":          survivesReopen,
		"MissingIsNotFound":       missing,
		"MountsAreDeterministic":  deterministic,
		"RemoveWhileMountedWorks": removeWhileMounted,
		"FilesAreExact":           filesAreExact,
		"LongChains":              longChains,
		"ManyAtOnce":              manyAtOnce,
		"RemovalInAnyOrder":       removalInAnyOrder,
		"CommitCanBeRepeated":     commitCanBeRepeated,
		"SiblingsAreApart":        siblingsAreApart,
	} {
		t.Run(name, func(t *testing.T) {
			root := cfg.Root(t)
			d, err := cfg.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			s := &suite{Config: cfg, t: t, d: d, root: root}
			s.atOpen = s.entries()
			test(t, s)
			if err := s.d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

type suite struct {
	Config
	t    *testing.T
	d    snapshot.Driver
	root string
	// atOpen are the files that the driver itself keeps in its directory.
	atOpen []string
}

func (s *suite) entries() []string {
	s.t.Helper()
	entries, err := os.ReadDir(s.root)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (s *suite) prepare(id uint64, parents []uint64, kind snapshot.Kind) {
	s.t.Helper()
	if err := s.d.Prepare(context.Background(), id, parents, kind); err != nil {
		s.t.Fatal(err)
	}
}

// mounted mounts a snapshot at a directory while f runs.
func (s *suite) mounted(id uint64, parents []uint64, kind snapshot.Kind, f func(dir string)) {
	s.t.Helper()
	ms, err := s.d.Mounts(context.Background(), id, parents, kind)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	if err := mount.All(ms, dir); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			s.t.Error(err)
		}
	}()
	f(dir)
}

// layer creates a committed snapshot with the given files.
func (s *suite) layer(id uint64, parents []uint64, files map[string]string) snapshot.Usage {
	s.t.Helper()
	s.prepare(id, parents, snapshot.KindActive)
	s.mounted(id, parents, snapshot.KindActive, func(dir string) {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				s.t.Fatal(err)
			}
		}
	})
	u, err := s.d.Commit(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

func (s *suite) wantFile(dir, name, want string) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(got) != want {
		s.t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
	}
}

func layersStack(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1", "b": "1"})
	s.layer(2, []uint64{1}, map[string]string{"b": "2", "c": "2"})
	s.prepare(3, []uint64{2, 1}, snapshot.KindActive)
	s.mounted(3, []uint64{2, 1}, snapshot.KindActive, func(dir string) {
		s.wantFile(dir, "a", "1")
		s.wantFile(dir, "b", "2")
		s.wantFile(dir, "c", "2")
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte("3"), 0o644); err != nil {
			s.t.Error(err)
		}
	})
	s.prepare(4, []uint64{2, 1}, snapshot.KindView)
	s.mounted(4, []uint64{2, 1}, snapshot.KindView, func(dir string) { s.wantFile(dir, "a", "1") })
}

func deletionsHide(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"gone": "1", "stays": "1"})
	s.prepare(2, []uint64{1}, snapshot.KindActive)
	s.mounted(2, []uint64{1}, snapshot.KindActive, func(dir string) {
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			s.t.Error(err)
		}
	})
	if _, err := s.d.Commit(context.Background(), 2); err != nil {
		s.t.Fatal(err)
	}
	s.prepare(3, []uint64{2, 1}, snapshot.KindView)
	s.mounted(3, []uint64{2, 1}, snapshot.KindView, func(dir string) {
		s.wantFile(dir, "stays", "1")
		if _, err := os.Lstat(filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("a deleted file is back: %v", err)
		}
	})
}

func viewsAreReadOnly(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	s.layer(2, []uint64{1}, nil)
	for id, parents := range map[uint64][]uint64{3: nil, 4: {1}, 5: {2, 1}} {
		s.prepare(id, parents, snapshot.KindView)
		s.mounted(id, parents, snapshot.KindView, func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				s.t.Errorf("view over %v: writing gave %v, want EROFS", parents, err)
			}
		})
	}
}

func removeIsIdempotent(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	for range 2 {
		if err := s.d.Remove(context.Background(), 1); err != nil {
			s.t.Error(err)
		}
	}
	if _, err := s.d.Usage(context.Background(), 1); !errdefs.IsNotFound(err) {
		s.t.Errorf("after removal: %v, want not found", err)
	}
	s.empty()
}

// empty checks that the driver's directory is as it was when it was opened.
func (s *suite) empty() {
	s.t.Helper()
	if got := s.entries(); !slices.Equal(got, s.atOpen) {
		s.t.Errorf("left behind: %v; at open there was %v", got, s.atOpen)
	}
}

func prepareReplacesRemains(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"old": "1"})
	s.prepare(1, nil, snapshot.KindActive)
	s.mounted(1, nil, snapshot.KindActive, func(dir string) {
		if _, err := os.Lstat(filepath.Join(dir, "old")); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("the remains of an earlier call are visible: %v", err)
		}
	})
}

func cleanupKeepsTheLive(_ *testing.T, s *suite) {
	for id := range uint64(6) {
		s.prepare(id+1, nil, snapshot.KindActive)
	}
	removed, err := s.d.Cleanup(context.Background(), func(id uint64) bool { return id%2 == 0 })
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(removed)
	if !slices.Equal(removed, []uint64{1, 3, 5}) {
		s.t.Errorf("removed %v, want 1 3 5", removed)
	}
	for id := range uint64(6) {
		_, err := s.d.Usage(context.Background(), id+1)
		if live := (id+1)%2 == 0; live != (err == nil) {
			s.t.Errorf("snapshot %d: live %v, but %v", id+1, live, err)
		}
	}
}

func usageCountsOnce(_ *testing.T, s *suite) {
	ctx := context.Background()
	s.prepare(1, nil, snapshot.KindActive)
	before, err := s.d.Usage(ctx, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mounted(1, nil, snapshot.KindActive, func(dir string) {
		path := filepath.Join(dir, "big")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Link(path, path+"2"); err != nil {
			s.t.Fatal(err)
		}
	})
	after, err := s.d.Commit(ctx, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if after.Inodes-before.Inodes != 1 {
		s.t.Errorf("inodes grew by %d, want 1", after.Inodes-before.Inodes)
	}
	if grown := after.Size - before.Size; grown < 1<<20 || grown > 1<<20+1<<16 {
		s.t.Errorf("size grew by %d, want about 1 MiB", grown)
	}
	if child := s.layer(2, []uint64{1}, nil); child.Size > 1<<16 && !s.Copies {
		s.t.Errorf("an empty child has %d bytes", child.Size)
	}
}

func rootKeepsModeAndOwner(_ *testing.T, s *suite) {
	s.prepare(1, nil, snapshot.KindActive)
	s.mounted(1, nil, snapshot.KindActive, func(dir string) {
		if err := errors.Join(os.Chown(dir, 12, 34), os.Chmod(dir, 0o1751)); err != nil {
			s.t.Fatal(err)
		}
		if err := unix.Chmod(dir, 0o1751); err != nil {
			s.t.Fatal(err)
		}
	})
	if _, err := s.d.Commit(context.Background(), 1); err != nil {
		s.t.Fatal(err)
	}
	s.prepare(2, []uint64{1}, snapshot.KindActive)
	s.mounted(2, []uint64{1}, snapshot.KindActive, func(dir string) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			s.t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o1751 || st.Uid != 12 || st.Gid != 34 {
			s.t.Errorf("root is %o %d:%d, want 1751 12:34", st.Mode&0o7777, st.Uid, st.Gid)
		}
	})
}

func badArguments(_ *testing.T, s *suite) {
	ctx := context.Background()
	if err := s.d.Prepare(ctx, 0, nil, snapshot.KindActive); !errdefs.IsInvalidArgument(err) {
		s.t.Errorf("number 0: %v", err)
	}
	if err := s.d.Prepare(ctx, 1, nil, snapshot.KindCommitted); !errdefs.IsInvalidArgument(err) {
		s.t.Errorf("committed: %v", err)
	}
	if _, err := s.d.Mounts(context.Background(), 1, nil, snapshot.KindCommitted); !errdefs.IsInvalidArgument(err) {
		s.t.Errorf("mounts of a committed one: %v", err)
	}
	if err := s.d.Prepare(ctx, 2, []uint64{77}, snapshot.KindActive); !errdefs.IsNotFound(err) {
		s.t.Errorf("missing parent: %v", err)
	}
	s.empty()
}

func cancelled(_ *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.d.Prepare(ctx, 1, nil, snapshot.KindActive); !errors.Is(err, context.Canceled) {
		s.t.Errorf("got %v", err)
	}
	s.empty()
}

func survivesReopen(t *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	if err := s.d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := s.Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	s.d = d
	s.prepare(2, []uint64{1}, snapshot.KindView)
	s.mounted(2, []uint64{1}, snapshot.KindView, func(dir string) { s.wantFile(dir, "a", "1") })
}

func missing(_ *testing.T, s *suite) {
	if _, err := s.d.Usage(context.Background(), 9); !errdefs.IsNotFound(err) {
		s.t.Errorf("usage: %v", err)
	}
	if _, err := s.d.Commit(context.Background(), 9); !errdefs.IsNotFound(err) {
		s.t.Errorf("commit: %v", err)
	}
}

func deterministic(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	s.layer(2, []uint64{1}, map[string]string{"b": "1"})
	s.prepare(3, []uint64{2, 1}, snapshot.KindActive)
	a, errA := s.d.Mounts(context.Background(), 3, []uint64{2, 1}, snapshot.KindActive)
	b, errB := s.d.Mounts(context.Background(), 3, []uint64{2, 1}, snapshot.KindActive)
	if errA != nil || errB != nil || len(a) != len(b) {
		s.t.Fatal(errA, errB)
	}
	for i := range a {
		if a[i].Type != b[i].Type || a[i].Source != b[i].Source || !slices.Equal(a[i].Options, b[i].Options) {
			s.t.Errorf("%v differs from %v", a[i], b[i])
		}
	}
}

func removeWhileMounted(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	s.layer(2, []uint64{1}, map[string]string{"b": "1"})
	s.prepare(3, []uint64{2, 1}, snapshot.KindActive)
	s.mounted(3, []uint64{2, 1}, snapshot.KindActive, func(string) {
		if err := s.d.Remove(context.Background(), 3); err != nil {
			s.t.Error(err)
		}
	})
}
