package overlay_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func open(root string) (snapshot.Driver, error) { return overlay.Open(root) }

func TestConformance(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, "ext4")})
}

func TestConformance_LongOddDirectory(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Root: snapshottest.On(t, "ext4"), Open: func(root string) (snapshot.Driver, error) {
		return overlay.Open(filepath.Join(root, strings.Repeat("l", 200)+`:,\`))
	}})
}

func TestCleanup_RemovesRemainsOfCrash(t *testing.T) {
	root := t.TempDir()
	d, err := open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, ".rm-OTHER-7-1", "fs", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Cleanup(context.Background(), func(uint64) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func Example() {
	root, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(root) }()
	ctx := context.Background()
	d, err := overlay.Open(root)
	if err != nil {
		fmt.Println(err)
		return
	}
	// A layer, numbered 1 by the caller, then a writable snapshot on it.
	if err := d.Prepare(ctx, 1, nil, snapshot.KindActive); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := d.Commit(ctx, 1); err != nil {
		fmt.Println(err)
		return
	}
	if err := d.Prepare(ctx, 2, []uint64{1}, snapshot.KindActive); err != nil {
		fmt.Println(err)
		return
	}
	mounts, err := d.Mounts(ctx, 2, []uint64{1}, snapshot.KindActive)
	fmt.Println(len(mounts), mounts[0].Type, err)
	// Output: 1 overlay <nil>
}

func TestLimits(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) { snapshottest.RunLimits(t, snapshottest.Config{Open: open, Root: on.Dir}) })
	}
}

func TestNoLimits(t *testing.T) {
	snapshottest.RunNoLimits(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, "ext4")})
}
