package images

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

const storageLabel = "containerd.io/snapshot/cleat.storage-size"

func TestStorageLimit_OnXFS(t *testing.T) {
	t.Parallel()
	storageLimitOn(t, "xfs")
}

func TestStorageLimit_OnExt4(t *testing.T) {
	t.Parallel()
	storageLimitOn(t, "ext4")
}

// storageLimitOn runs containers on a file system with project quotas, in a kernel that supports them. Each test has a
// kernel of its own, because an emulated one is slow.
func storageLimitOn(t *testing.T, kind string) {
	t.Helper()
	if !guest.Inside(t, guest.Options{Env: []string{harness.BinariesEnv + "=" + harness.Binaries()}}) {
		return
	}
	base := filepath.Join(snapshottest.WithProjectQuota(t, kind).Dir(t), "cleat")
	harness.Must(t, os.Mkdir(base, 0o755))
	d := harness.StartAt(t, base)
	d.Busybox()
	limitedStorage(d, "overlayfs")
	if kind == "ext4" { // the result depends on the container's capabilities
		limitedStorage(d, "native")
	}
	badStorageSizes(d)
	limitedSnapshots(d)
}

// limitedStorage takes a container with a limit through its life.
func limitedStorage(d *harness.Daemon, snapshotter string) {
	d.T.Helper()
	t := d.T
	name := "small-" + snapshotter
	d.Cleat("run", "-d", "--name", name, "--snapshotter", snapshotter, "--storage-size", "16m", "busybox", "sleep", "10000")
	write := func(mib string) (said string, code int) {
		_, stderr, code := d.Try("exec", name, "dd", "if=/dev/zero", "of=/big", "bs=1M", "conv=fsync", "count="+mib)
		d.Cleat("exec", name, "rm", "-f", "/big")
		return stderr, code
	}
	over := func(said string, code int) bool {
		return code != 0 && (strings.Contains(said, "No space left on device") || strings.Contains(said, "quota exceeded"))
	}
	if said, code := write("4"); code != 0 {
		t.Errorf("%s: 4 MiB of 16 do not fit: %s", snapshotter, said)
	}
	if said, code := write("32"); !over(said, code) {
		t.Errorf("%s: 32 MiB into 16 gave code %d, %s", snapshotter, code, said)
	}
	d.Cleat("exec", name, "touch", "/small")
	if got := inspected(d, name); got != 16<<20 {
		t.Errorf("%s: inspect shows %d", snapshotter, got)
	}
	if got := snapshotLabels(d, snapshotter, name)[storageLabel]; got != "16777216" {
		t.Errorf("%s: label of the snapshot %q", snapshotter, got)
	}
	d.Restart()
	if said, code := write("32"); !over(said, code) {
		t.Errorf("%s: after kill -9 32 MiB into 16 gave code %d, %s", snapshotter, code, said)
	}
	if err := relabel(d, snapshotter, name, "64MiB"); err != nil {
		t.Errorf("%s: %v", snapshotter, err)
	}
	if said, code := write("32"); code != 0 || inspected(d, name) != 64<<20 {
		t.Errorf("%s: with a limit of 64 MiB (inspect: %d) 32 do not fit: %s", snapshotter, inspected(d, name), said)
	}
	if out := d.Cleat("run", "--rm", "--snapshotter", snapshotter, "busybox", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=80 2>/dev/null; echo $?"); out != "0" {
		t.Errorf("%s: a container without a limit: %s", snapshotter, out)
	}
	_, stderr, code := d.Try("run", "--rm", "--snapshotter", snapshotter, "--storage-size", "16MiB", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "conv=fsync", "count=32")
	if !over(stderr, code) {
		t.Errorf("%s: with --rm 32 MiB into 16 gave code %d, %s", snapshotter, code, stderr)
	}
	if snapshotter == "overlayfs" {
		_, stderr, code := d.Try("run", "--rm", "--privileged", "--storage-size", "16MiB", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "conv=fsync", "count=32")
		if !over(stderr, code) {
			t.Errorf("privileged, 32 MiB into 16 gave code %d, %s", code, stderr)
		}
	}
	d.Cleat("rm", "--force", name)
}

// inspected returns the limit in the output of inspect.
func inspected(d *harness.Daemon, id string) int64 {
	d.T.Helper()
	var list []struct {
		StorageSize int64 `json:"storage_size"`
	}
	harness.Must(d.T, json.Unmarshal([]byte(d.Cleat("inspect", id)), &list))
	return list[0].StorageSize
}

func snapshotLabels(d *harness.Daemon, snapshotter, key string) map[string]string {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	resp, err := snapshotsapi.NewSnapshotsClient(conn).Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: key})
	harness.Must(d.T, err)
	return resp.GetInfo().GetLabels()
}

// relabel changes the limit of a snapshot over the API.
func relabel(d *harness.Daemon, snapshotter, key, size string) error {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	_, err := snapshotsapi.NewSnapshotsClient(conn).Update(ctx, &snapshotsapi.UpdateSnapshotRequest{
		Snapshotter: snapshotter,
		Info:        &snapshotsapi.Info{Name: key, Labels: map[string]string{storageLabel: size}},
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"labels." + storageLabel}},
	})
	return errgrpc.ToNative(err)
}

// badStorageSizes checks that these are refused and nothing is created.
func badStorageSizes(d *harness.Daemon) {
	d.T.Helper()
	for size, want := range map[string]string{
		"0": "more than 0", "-1": "want a number", "1k": "at least 1048576", "much": "want a number", "9999999t": "want a number",
	} {
		_, stderr, code := d.Try("run", "--name", "bad", "--storage-size="+size, "busybox", "true")
		if code != 125 || !strings.Contains(stderr, want) {
			d.T.Errorf("size %s: code %d, %s", size, code, stderr)
		}
	}
	_, stderr, code := d.Try("run", "--name", "bad", "--rootfs", "--storage-size", "1g", "/", "true")
	if code != 125 || !strings.Contains(stderr, "rootfs directory cannot be limited") {
		d.T.Errorf("a rootfs directory: code %d, %s", code, stderr)
	}
	_, stderr, code = d.Try("run", "--name", "bad", "--snapshotter", "btrfs", "--storage-size", "1g", "busybox", "true")
	if code != 125 || !strings.Contains(stderr, "btrfs") {
		d.T.Errorf("another snapshotter: code %d, %s", code, stderr)
	}
	if _, stderr, code := d.Try("inspect", "bad"); code == 0 || !strings.Contains(stderr, "bad") {
		d.T.Errorf("objects were created: %d, %s", code, stderr)
	}
}

// limitedSnapshots uses the label as any client of the API does.
func limitedSnapshots(d *harness.Daemon) {
	d.T.Helper()
	t := d.T
	ctx, conn := fixture.GRPC(d)
	c := snapshotsapi.NewSnapshotsClient(conn)
	prepare := func(key, size string) error {
		_, err := c.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: key, Labels: map[string]string{storageLabel: size, "containerd.io/gc.root": "1"},
		})
		return errgrpc.ToNative(err)
	}
	for _, size := range []string{"0", "-4", "12", "lots"} {
		if err := prepare("bad", size); !errdefs.IsInvalidArgument(err) {
			t.Errorf("size %q: %v", size, err)
		}
	}
	harness.Must(t, prepare("good", "10MiB"))
	if got := snapshotLabels(d, "overlayfs", "good")[storageLabel]; got != "10MiB" {
		t.Errorf("the label became %q", got)
	}
	if err := relabel(d, "overlayfs", "good", "1"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("relabelled below the minimum: %v", err)
	}
	harness.Must(t, prepare("free", ""))
	if err := relabel(d, "overlayfs", "free", "10MiB"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("relabelled a snapshot without a limit: %v", err)
	}
	for _, key := range []string{"good", "free"} {
		_, err := c.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: key})
		harness.Must(t, err)
	}
}

// TestStorageLimit_Unsupported_Fails checks that the error names the missing feature, and nothing is left.
func TestStorageLimit_Unsupported_Fails(t *testing.T) {
	t.Parallel()
	base := filepath.Join(snapshottest.On(t, "ext4")(t), "cleat")
	harness.Must(t, os.Mkdir(base, 0o755))
	d := harness.StartAt(t, base)
	d.Busybox()
	_, stderr, code := d.Try("run", "--name", "bad", "--storage-size", "1g", "busybox", "true")
	for _, part := range []string{"file system ext4 at " + filepath.Dir(filepath.Dir(base)), "does not keep project quotas", "docs/snapshotters.md"} {
		if code != 125 || !strings.Contains(stderr, part) {
			t.Errorf("code %d, %q lacks %q", code, stderr, part)
		}
	}
	for _, snapshotter := range []string{"erofs", "btrfs"} {
		_, stderr, code := d.Try("run", "--name", "bad", "--snapshotter", snapshotter, "--storage-size", "1g", "busybox", "true")
		if code != 125 || !strings.Contains(stderr, snapshotter) {
			t.Errorf("%s: code %d, %s", snapshotter, code, stderr)
		}
	}
	if out := d.Cleat("ps", "--all", "--quiet"); out != "" {
		t.Errorf("containers are left: %s", out)
	}
	d.Cleat("image", "rm", "busybox")
	for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
		d.Eventually("nothing is left of "+snapshotter, func() error { return harness.Empty(filepath.Join(d.Root, "snapshots", snapshotter), 1) })
	}
}
