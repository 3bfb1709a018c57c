package snapshottest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

// longChains stacks as many layers as images may have, in each of which files are created, changed
// and deleted.
func longChains(_ *testing.T, s *suite) {
	const layers = 120
	var parents []uint64
	for i := range layers {
		id := uint64(i + 1)
		s.prepare(id, parents, snapshot.KindActive)
		s.change(id, parents, func(dir string) error {
			err := errors.Join(
				os.WriteFile(filepath.Join(dir, fmt.Sprint("made-", i)), fmt.Append(nil, i), 0o644),
				os.WriteFile(filepath.Join(dir, "changed"), fmt.Append(nil, i), 0o644),
			)
			if i >= 2 {
				err = errors.Join(err, os.Remove(filepath.Join(dir, fmt.Sprint("made-", i-2))))
			}
			return err
		})
		parents = append([]uint64{id}, parents...)
	}
	s.prepare(layers+1, parents, snapshot.KindActive)
	s.mounted(layers+1, parents, snapshot.KindActive, func(dir string) {
		s.wantFile(dir, "changed", fmt.Sprint(layers-1))
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 3 {
			s.t.Errorf("%v, %v", entries, err)
		}
	})
}

// manyAtOnce creates, commits, measures and removes snapshots in parallel.
func manyAtOnce(t *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range uint64(24) {
		id := i + 2
		wg.Go(func() {
			for range 3 {
				err := s.d.Prepare(ctx, id, []uint64{1}, snapshot.KindActive)
				if err == nil {
					_, err = s.d.Usage(ctx, id)
				}
				if err == nil && id%2 == 0 {
					_, err = s.d.Commit(ctx, id)
				}
				if err == nil {
					err = s.d.Remove(ctx, id)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if removed, err := s.d.Cleanup(ctx, func(id uint64) bool { return id == 1 }); err != nil || len(removed) != 0 {
		t.Errorf("left: %v, %v", removed, err)
	}
}

// removalInAnyOrder removes a chain and its children from the top, and from the bottom: the
// caller is responsible for the order, and no order may leave anything in the end.
func removalInAnyOrder(_ *testing.T, s *suite) {
	ctx := context.Background()
	for _, down := range []bool{true, false} {
		s.layer(1, nil, map[string]string{"a": "1"})
		s.layer(2, []uint64{1}, map[string]string{"b": "1"})
		s.prepare(3, []uint64{2, 1}, snapshot.KindActive)
		s.prepare(4, []uint64{2, 1}, snapshot.KindView)
		ids := []uint64{1, 2, 3, 4}
		if down {
			slices.Reverse(ids)
		}
		for _, id := range ids {
			err := s.d.Remove(ctx, id)
			if refused := s.Ordered && !down && id <= 2; refused != errdefs.IsFailedPrecondition(err) || !refused && err != nil {
				s.t.Errorf("remove %d: %v", id, err)
			}
		}
		if s.Ordered {
			if _, err := s.d.Cleanup(ctx, func(uint64) bool { return false }); err != nil {
				s.t.Error(err)
			}
		}
		s.empty()
	}
}

// commitCanBeRepeated simulates a crash between the commit and its record.
func commitCanBeRepeated(t *testing.T, s *suite) {
	first := s.layer(1, nil, map[string]string{"a": "1"})
	if err := s.d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := s.Open(s.root)
	if err != nil {
		t.Fatal(err)
	}
	s.d = d
	again, err := s.d.Commit(context.Background(), 1)
	if err != nil || again != first {
		t.Errorf("%+v, %v; want %+v", again, err, first)
	}
	s.prepare(2, []uint64{1}, snapshot.KindView)
	s.mounted(2, []uint64{1}, snapshot.KindView, func(dir string) { s.wantFile(dir, "a", "1") })
}

// siblingsAreApart writes to snapshots of one parent in parallel.
func siblingsAreApart(_ *testing.T, s *suite) {
	s.layer(1, nil, map[string]string{"a": "1"})
	for id := range uint64(3) {
		s.prepare(id+2, []uint64{1}, snapshot.KindActive)
	}
	s.mounted(2, []uint64{1}, snapshot.KindActive, func(one string) {
		s.mounted(3, []uint64{1}, snapshot.KindActive, func(two string) {
			if err := errors.Join(os.WriteFile(filepath.Join(one, "a"), []byte("2"), 0o644), os.Remove(filepath.Join(two, "a"))); err != nil {
				s.t.Error(err)
			}
		})
	})
	s.mounted(4, []uint64{1}, snapshot.KindActive, func(dir string) { s.wantFile(dir, "a", "1") })
}
