package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/mount"
)

// mountPoint returns a directory, and unmounts it at the end of the test if necessary.
func mountPoint(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// twoLayers imports an image of several layers.
func twoLayers(d *harness.Daemon) {
	d.T.Helper()
	d.Cleat("image", "import", "--name", "layered", harness.OCIArchive(d.T, [][]byte{
		harness.TarOf(d.T, harness.BusyboxFiles(d.T)), harness.TarOf(d.T, []harness.File{{Name: "data/upper", Mode: 0o644, Body: "upper"}}),
	}, harness.BusyboxConfig(), nil))
}

// mounts lists the mounted images with their status.
func mounts(d *harness.Daemon) map[string]string {
	d.T.Helper()
	var list []struct{ Target, Status string }
	harness.Must(d.T, json.Unmarshal([]byte(d.Cleat("image", "mount", "--format", "json")), &list))
	out := make(map[string]string)
	for _, m := range list {
		out[m.Target] = m.Status
	}
	return out
}

func TestImageMount(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"overlayfs", "native", "erofs"} {
		t.Run(name, func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			twoLayers(d)
			ro, rw, single := mountPoint(t), mountPoint(t), mountPoint(t)
			if out := d.Cleat("image", "mount", "--snapshotter", name, "layered", ro); out != ro {
				t.Errorf("%q", out)
			}
			d.Cleat("image", "mount", "--rw", "--snapshotter", name, "layered", rw)
			d.Cleat("image", "mount", "--snapshotter", name, "busybox", single)
			for _, dir := range []string{ro, rw} {
				if got, err := os.ReadFile(filepath.Join(dir, "data", "upper")); err != nil || string(got) != "upper" {
					t.Errorf("%s: %q, %v", dir, got, err)
				}
			}
			for _, dir := range []string{ro, single} {
				if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("%s can be written to: %v", dir, err)
				}
			}
			harness.Must(t, os.WriteFile(filepath.Join(rw, "x"), []byte("x"), 0o600))
			if _, err := os.Stat(filepath.Join(ro, "x")); err == nil {
				t.Error("a write is visible in another mount")
			}
			if _, stderr, code := d.Try("image", "mount", "busybox", ro); code != 1 || !strings.Contains(stderr, "image unmount "+ro) {
				t.Errorf("second mount on a directory: %d, %s", code, stderr)
			}
			// A mounted image is kept by collections, by the removal of its name and by a restart of the daemon.
			d.Cleat("image", "prune", "--all")
			d.Restart()
			d.Cleat("gc")
			if got, err := os.ReadFile(filepath.Join(rw, "data", "upper")); err != nil || string(got) != "upper" {
				t.Errorf("%q, %v", got, err)
			}
			if m := mounts(d); m[ro] != "mounted" || m[rw] != "mounted" || m[single] != "mounted" || len(m) != 3 {
				t.Errorf("%v", m)
			}
			busy, err := os.Open(filepath.Join(ro, "data"))
			harness.Must(t, err)
			if _, stderr, code := d.Try("image", "unmount", ro); code != 1 || !strings.Contains(stderr, "in use") {
				t.Errorf("unmount in use: %d, %s", code, stderr)
			}
			harness.Must(t, busy.Close())
			d.Cleat("image", "unmount", ro, single)
			d.Cleat("image", "unmount", "--rm", rw)
			for range 2 {
				if _, stderr, code := d.Try("image", "unmount", rw); code != 1 || !strings.Contains(stderr, "no image is mounted") || !strings.Contains(stderr, "hint: ") {
					t.Errorf("second unmount: %d, %s", code, stderr)
				}
			}
			d.Eventually("nothing is left", func() error { return harness.Empty(filepath.Join(d.Root, "snapshots", name), 1) })
		})
	}
}

func TestImageUnmount_KeepsForeignMounts(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	twoLayers(d)
	dir := mountPoint(t)
	harness.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	harness.Must(t, os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600))
	theirs := func() error {
		_, err := os.Stat(filepath.Join(dir, "theirs"))
		return err
	}
	d.Cleat("image", "mount", "layered", dir)
	// With a foreign mount on top.
	harness.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	if _, stderr, code := d.Try("image", "unmount", dir); code != 1 || !strings.Contains(stderr, "something else") {
		t.Errorf("unmount below a foreign mount: %d, %s", code, stderr)
	}
	harness.Must(t, unix.Unmount(dir, 0))
	d.Cleat("image", "unmount", dir)
	harness.Must(t, theirs())
	// Unmounted manually.
	d.Cleat("image", "mount", "layered", dir)
	harness.Must(t, unix.Unmount(dir, 0))
	if _, stderr, code := d.Try("image", "unmount", dir); code != 1 || theirs() != nil {
		t.Errorf("unmount after a manual one: %d, %s", code, stderr)
	}
	harness.Must(t, unix.Unmount(dir, 0))
	d.Cleat("image", "unmount", dir)
	if m := mounts(d); len(m) != 0 {
		t.Errorf("%v", m)
	}
}

func TestImageMount_InvalidRequest_IsRefused(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	twoLayers(d)
	dir := mountPoint(t)
	plain := filepath.Join(t.TempDir(), "file")
	harness.Must(t, os.WriteFile(plain, nil, 0o600))
	before := objects(d)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no image":       {[]string{"nosuch", dir}, "hint:"},
		"no directory":   {[]string{"layered", filepath.Join(dir, "none")}, "mkdir"},
		"a file":         {[]string{"layered", plain}, "not a directory"},
		"one argument":   {[]string{"layered"}, "no directory given"},
		"no platform":    {[]string{"--platform", "linux/s390x", "layered", dir}, "platform"},
		"no snapshotter": {[]string{"--snapshotter", "none", "layered", dir}, "none"},
	} {
		_, stderr, code := d.Try(append([]string{"image", "mount"}, c.args...)...)
		if code != 1 || !strings.Contains(stderr, c.says) || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
	}
	if got := objects(d); got != before || len(mounts(d)) != 0 {
		t.Errorf("%s, before: %s; %v", got, before, mounts(d))
	}
}

// TestImageMount_StaleMounts_AreFound has a client that died between the response and its mount, and a mount whose
// mount namespace has ended.
func TestImageMount_StaleMounts_AreFound(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	twoLayers(d)
	before := objects(d)
	c := fixture.Client(d)
	dir := mountPoint(t)
	own, err := os.Readlink("/proc/self/ns/mnt")
	harness.Must(t, err)
	_, _, err = c.MountImage(t.Context(), client.MountImageRequest{Image: "layered", Target: dir, MountNamespace: own})
	harness.Must(t, err)
	if m := mounts(d); m[dir] != "not mounted" {
		t.Errorf("%v", m)
	}
	if _, stderr, code := d.Try("image", "mount", "layered", dir); code != 1 || !strings.Contains(stderr, "hint:") {
		t.Errorf("%d, %s", code, stderr)
	}
	d.Cleat("image", "unmount", "--rm", dir)
	// In a mount namespace that ends with its only process.
	cmd := exec.Command("unshare", "-m", harness.Binary("cleat"), "--address", d.Address, "image", "mount", "--rw", "layered", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if m := mounts(d); m[dir] != "elsewhere" {
		t.Errorf("%v", m)
	}
	if _, stderr, code := d.Try("image", "unmount", dir); code != 1 || !strings.Contains(stderr, "another mount namespace") {
		t.Errorf("%d, %s", code, stderr)
	}
	d.Restart()
	if len(mounts(d)) != 1 {
		t.Error("a new mount is treated as stale")
	}
	d.Stop()
	if out, _, code := d.Try("doctor", "--root", d.Root, "--state", d.State); code != 0 {
		t.Errorf("doctor reports a new mount: %s", out)
	}
	d.Begin()
	harness.Must(t, fixture.Client(d).UnmountImage(t.Context(), dir, "", true))
	d.Eventually("nothing is left", func() error {
		if got := objects(d); got != before {
			return fmt.Errorf("%s, before: %s", got, before)
		}
		return nil
	})
}

// TestImageMount_AfterReboot_IsStale: mounts recorded before a reboot do not exist after it.
func TestImageMount_AfterReboot_IsStale(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	twoLayers(d)
	before := objects(d)
	ctx, conn := fixture.GRPC(d)
	_, err := snapshotsapi.NewSnapshotsClient(conn).Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
		Snapshotter: "overlayfs", Key: "mount-of-old", Labels: map[string]string{
			"containerd.io/gc.root": "x", "cleat.io/mount": "/some/where", "cleat.io/mount.image": "layered", "cleat.io/mount.boot": "another",
		},
	})
	harness.Must(t, err)
	d.Cleat("gc")
	if m := mounts(d); m["/some/where"] == "" {
		t.Errorf("%v", m)
	}
	d.Stop()
	out, _, code := d.Try("doctor", "--root", d.Root, "--state", d.State)
	if code != 1 || !strings.Contains(out, "mount-of-old") || !strings.Contains(out, "image unmount --rm /some/where") {
		t.Errorf("doctor: %d, %s", code, out)
	}
	d.Begin()
	if m := mounts(d); len(m) != 0 {
		t.Errorf("%v", m)
	}
	if got := objects(d); got != before {
		t.Errorf("%s, before: %s", got, before)
	}
}
