package metadata

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// collectCrashEnv names the database, the point and the visit to it at which a copy of the
// test binary kills itself while it collects.
const collectCrashEnv = "CLEAT_TEST_COLLECT_CRASH"

// TestKilledCollection_LeavesOnlyGarbage kills the process at every point of a collection. What is
// in use is present afterwards, what is left of the garbage is whole, and the next collection
// deletes it.
func TestKilledCollection_LeavesOnlyGarbage(t *testing.T) {
	keep := []string{"content config0", "content manifest0", "image img", "snapshot a", "snapshot b0"}
	for _, at := range []SweepStep{StepMarked, StepSweeping, StepSwept, StepCommit} {
		for visit := 1; visit <= 5; visit += 2 {
			t.Run(fmt.Sprint(at, visit), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "meta.db")
				y := &yard{t: t}
				y.reopen(path)
				y.update(func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) })
				y.snapshot("ns", "fs", "a", "", nil)
				for i := range 3 {
					n := strconv.Itoa(i)
					y.snapshot("ns", "fs", "b"+n, "a", nil)
					y.blob("ns", "config"+n, labels{LabelRefSnapshot + "fs": "b" + n})
					y.blob("ns", "manifest"+n, labels{LabelRefContent + ".config": dgst("config" + n).String()})
				}
				y.image("ns", "img", "manifest0", nil)
				if err := y.db.Close(); err != nil {
					t.Fatal(err)
				}
				if at == StepMarked && visit > 1 {
					return // it is visited once
				}
				killedCollection(t, path, at, visit)
				y.reopen(path)
				y.whole()
				y.collect(CollectOptions{})
				if left := y.left("ns", "config0", "manifest0"); !slices.Equal(left, keep) {
					t.Errorf("left is %q", left)
				}
				if err := y.db.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func (y *yard) reopen(path string) {
	y.t.Helper()
	db, err := OpenWith(path, Options{Now: y.clock})
	if err != nil {
		y.t.Fatal(err)
	}
	y.db = db
}

// whole fails the test if an object refers to a deleted one.
func (y *yard) whole() {
	y.t.Helper()
	graphs, err := y.db.graphs(context.Background())
	if err != nil {
		y.t.Fatal(err)
	}
	for _, g := range graphs {
		for i := range g.nodes {
			for e := g.nodes[i].first; e >= 0; e = g.edges[e].next {
				if !g.nodes[g.edges[e].to].exists {
					y.t.Errorf("%v refers to %v, which is gone", g.nodes[i].name, g.nodes[g.edges[e].to].name)
				}
			}
		}
	}
}

func killedCollection(t *testing.T, path string, at SweepStep, visit int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCollectCrashChild$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%d", collectCrashEnv, path, at, visit))
	out, err := cmd.CombinedOutput()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !status.Signaled() {
		t.Fatalf("the collector ended by itself: %v\n%s", err, out)
	}
}

// TestCollectCrashChild is the process that kills itself; run otherwise it does nothing.
func TestCollectCrashChild(t *testing.T) {
	spec := strings.Split(os.Getenv(collectCrashEnv), "|")
	if len(spec) != 3 {
		return
	}
	y := &yard{t: t}
	y.reopen(spec[0])
	left, err := strconv.Atoi(spec[2])
	if err != nil {
		t.Fatal(err)
	}
	_, err = y.db.Collect(context.Background(), CollectOptions{Batch: 1, At: func(s SweepStep) error {
		if string(s) == spec[1] {
			left--
		}
		if left == 0 {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}})
	t.Fatalf("not killed: %v", err)
}
