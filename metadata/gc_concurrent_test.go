package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCollect_ObjectsUsedDuringCollectionStay lets a client act between the mark and the sweep, and
// between its transactions.
func TestCollect_ObjectsUsedDuringCollectionStay(t *testing.T) {
	chain := func(y *yard) {
		y.blob("ns", "config", nil)
		y.blob("ns", "manifest", labels{LabelRefContent + ".config": dgst("config").String()})
		y.snapshot("ns", "fs", "a", "", nil)
		y.snapshot("ns", "fs", "b", "a", nil)
	}
	all := []string{"content config", "content manifest", "snapshot a", "snapshot b"}
	for title, c := range map[string]struct {
		act  func(y *yard)
		keep []string
	}{
		"an image is created": {
			func(y *yard) { y.image("ns", "img", "manifest", nil) },
			[]string{"content config", "content manifest", "image img"},
		},
		"a label is set": {func(y *yard) {
			y.update(func(tx *Tx) error {
				_, err := tx.Content("ns").Update(Blob{Digest: dgst("config"), Labels: labels{LabelRefSnapshot + "fs": "b"}})
				return err
			})
		}, []string{"content config", "snapshot a", "snapshot b"}},
		"an old lease gets a resource": {func(y *yard) {
			y.update(func(tx *Tx) error {
				return tx.Leases("ns").AddResource("old", Resource{Type: "snapshots/fs", ID: "b"})
			})
		}, []string{"lease old", "snapshot a", "snapshot b"}},
		"a new lease gets a resource": {
			func(y *yard) { y.lease("ns", "l", nil, content("manifest")) },
			[]string{"content config", "content manifest", "lease l"},
		},
		"a snapshot is made on one": {
			func(y *yard) { y.snapshot("ns", "fs", "c", "b", nil) },
			[]string{"snapshot a", "snapshot b", "snapshot c"},
		},
		"a container is created": {
			func(y *yard) { y.container("ns", "c", "fs", "b", nil) },
			[]string{"container c", "snapshot a", "snapshot b"},
		},
		"a blob is deleted and written again": {func(y *yard) {
			y.update(func(tx *Tx) error { return tx.Content("ns").Delete(dgst("config")) })
			y.blob("ns", "config", nil)
		}, []string{"content config"}},
		"a call holds it": {func(y *yard) {
			h := y.db.Hold("ns")
			h.Content(dgst("manifest").String())
			h.Snapshot("fs", "b")
			y.t.Cleanup(h.Release)
		}, all},
		"what bears a back reference gets its target": {func(y *yard) {
			y.blob("ns", "new", nil)
			y.update(func(tx *Tx) error {
				_, err := tx.Content("ns").Update(Blob{Digest: dgst("config"), Labels: labels{"containerd.io/gc.bref.content": dgst("new").String()}})
				return err
			})
		}, []string{"content config", "content new"}},
	} {
		t.Run(title, func(t *testing.T) {
			y := newYard(t, "ns", "other")
			chain(y)
			if slices.Contains(c.keep, "lease old") {
				y.lease("ns", "old", nil)
			}
			y.collect(CollectOptions{Batch: 1, At: func(s SweepStep) error {
				if s == StepMarked {
					c.act(y)
				}
				return nil
			}})
			if left := y.left("ns", "config", "manifest", "new"); !slices.Equal(left, c.keep) {
				t.Errorf("left is %q, want %q", left, c.keep)
			}
		})
	}
}

func TestHold_ReleasedKeepsNothing(t *testing.T) {
	y := newYard(t, "ns", "other")
	y.blob("ns", "a", nil)
	one, two, foreign := y.db.Hold("ns"), y.db.Hold("ns"), y.db.Hold("other")
	for _, h := range []*Hold{one, one, two, foreign} {
		h.Content(dgst("a").String())
	}
	one.Release()
	one.Release()
	one.Content(dgst("a").String())
	if c := y.collect(CollectOptions{}); len(c.Removed) != 0 {
		t.Errorf("the second holder lost %v", c.Removed)
	}
	if dry, err := y.db.Garbage(context.Background()); err != nil || len(dry) != 0 {
		t.Errorf("what is held is announced as garbage: %v %v", dry, err)
	}
	two.Release()
	if c := y.collect(CollectOptions{}); len(c.Removed) != 1 {
		t.Errorf("removed are %v", c.Removed)
	}
	foreign.Release()
	if n := len(y.db.holds.count); n != 0 {
		t.Errorf("%d holds are left", n)
	}
}

func TestCollect_EndsAtRequestedPoint(t *testing.T) {
	stop := errors.New("stop")
	for _, at := range []SweepStep{StepMarked, StepSweeping, StepSwept, StepCommit} {
		y := newYard(t, "ns")
		for i := range 5 {
			y.blob("ns", fmt.Sprint(i), nil)
		}
		c, err := y.db.Collect(context.Background(), CollectOptions{Batch: 2, At: func(s SweepStep) error {
			if s == at {
				return stop
			}
			return nil
		}})
		if !errors.Is(err, stop) {
			t.Errorf("%s: %v", at, err)
		}
		want := 0
		if at == StepCommit {
			want = 2
		}
		if left := len(y.objects()); len(c.Removed) != want || left != 5-want {
			t.Errorf("%s: removed %d, left %d", at, len(c.Removed), left)
		}
		if c := y.collect(CollectOptions{}); len(c.Removed) != 5-want {
			t.Errorf("%s: the next collection removed %d", at, len(c.Removed))
		}
	}
	y := newYard(t, "ns")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := y.db.Collect(ctx, CollectOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWriters_FileGrows_DoNotWaitForReaders writes some megabytes while a reader, as a
// collection is one, holds its transaction.
func TestWriters_FileGrows_DoNotWaitForReaders(t *testing.T) {
	y := newYard(t, "ns")
	written := make(chan error, 1)
	err := y.db.View(context.Background(), func(*Tx) error {
		go func() {
			written <- func() error {
				for i := range 16 {
					err := y.db.Update(context.Background(), func(tx *Tx) error {
						return tx.Namespaces().SetLabels("ns", labels{"x": strings.Repeat("x", 4000), "i": fmt.Sprint(i)})
					})
					if err == nil {
						err = y.db.Update(context.Background(), func(tx *Tx) error {
							_, err := tx.Containers("ns").Create(Container{ID: fmt.Sprint(i), Runtime: Runtime{Name: "r"}, Spec: &Any{Value: make([]byte, 256<<10)}})
							return err
						})
					}
					if err != nil {
						return err
					}
				}
				return nil
			}()
		}()
		select {
		case err := <-written:
			return err
		case <-time.After(time.Minute): // for hangs, not a measure
			return errors.New("the writer waits for the reader")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
