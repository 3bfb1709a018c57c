package erofs_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/erofs"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func open(root string) (snapshot.Driver, error) { return erofs.Open(root) }

func TestConformance(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, "ext4")})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// It simulates a crash after Commit and before its record: the snapshot
// is still active for its clients, with all their data.
func TestCommit_Unrecorded_CanBeResumed(t *testing.T) {
	ctx := context.Background()
	d, err := erofs.Open(t.TempDir())
	must(t, err)
	must(t, d.Prepare(ctx, 1, nil, snapshot.KindActive))
	must(t, os.WriteFile(filepath.Join(d.FS(1), "file"), []byte("text"), 0o644))
	_, err = d.Commit(ctx, 1)
	must(t, err)
	ms, err := d.Mounts(t.Context(), 1, nil, snapshot.KindActive)
	must(t, err)
	dir := t.TempDir()
	must(t, mount.All(ms, dir))
	defer func() { must(t, mount.UnmountAll(dir, 0)) }()
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "text" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "more"), []byte("x"), 0o644))
	_, err = d.Commit(ctx, 1)
	must(t, err)
	must(t, d.Prepare(ctx, 2, []uint64{1}, snapshot.KindActive))
	must(t, d.Close())
}

// It closes the driver, as the end of a daemon does, below a mounted overlay.
func TestClose_KeepsOverlays(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	d, err := erofs.Open(root)
	must(t, err)
	must(t, d.Prepare(ctx, 1, nil, snapshot.KindActive))
	must(t, os.WriteFile(filepath.Join(d.FS(1), "file"), []byte("text"), 0o644))
	_, err = d.Commit(ctx, 1)
	must(t, err)
	must(t, d.Prepare(ctx, 2, []uint64{1}, snapshot.KindActive))
	ms, err := d.Mounts(t.Context(), 2, []uint64{1}, snapshot.KindActive)
	must(t, err)
	dir := t.TempDir()
	must(t, mount.All(ms, dir))
	defer func() { must(t, mount.UnmountAll(dir, 0)) }()
	must(t, d.Close())
	points, err := mount.Under(root)
	must(t, err)
	if len(points) != 0 {
		t.Errorf("mounted after the end: %v", points)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "text" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}
