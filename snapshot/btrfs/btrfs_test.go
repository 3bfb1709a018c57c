package btrfs_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/btrfs"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func open(root string) (snapshot.Driver, error) { return btrfs.Open(root) }

func filesystem(t *testing.T) string {
	t.Helper()
	return snapshottest.Filesystem(t, "btrfs", 512, "", "-q")
}

func TestConformance(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, "btrfs")})
}

func TestOpen_NotBtrfs(t *testing.T) {
	if _, err := btrfs.Open(t.TempDir()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("opened on another file system: %v", err)
	}
}

func TestRemove_NestedSubvolumes(t *testing.T) {
	ctx := context.Background()
	root := filesystem(t)
	d, err := btrfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(ctx, 1, nil, snapshot.KindActive); err != nil {
		t.Fatal(err)
	}
	// As a container does that has btrfs snapshots of its own.
	for _, args := range [][]string{
		{"create", "outer"}, {"create", "outer/inner"}, {"snapshot", "-r", "outer", "frozen"},
	} {
		for i, a := range args[1:] {
			if a[0] != '-' {
				args[i+1] = filepath.Join(d.FS(1), a)
			}
		}
		if out, err := exec.Command("btrfs", append([]string{"subvolume"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(d.FS(1), "outer/inner/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestCommit_MakesLayerReadOnly(t *testing.T) {
	ctx := context.Background()
	d, err := btrfs.Open(filesystem(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(ctx, 1, nil, snapshot.KindActive); err != nil {
		t.Fatal(err)
	}
	ms, err := d.Mounts(t.Context(), 1, nil, snapshot.KindActive)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := mount.All(ms, dir); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	if _, err := d.Commit(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "late"), nil, 0o600); err == nil {
		t.Error("a committed layer was written through an old mount")
	}
}
