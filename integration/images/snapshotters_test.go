package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

// eachSnapshotter is a life that is the same on every snapshotter: the image is unpacked on first use, containers do
// not share changes, and all snapshots are removed.
func eachSnapshotter(d *harness.Daemon, name string) {
	d.T.Helper()
	run := func(args ...string) string {
		return d.Cleat(append([]string{"run", "--snapshotter", name}, args...)...)
	}
	if out := run("--rm", "busybox", "sh", "-c", "echo changed > /etc/passwd; rm /bin/sh; cat /etc/passwd"); out != "changed" {
		d.T.Errorf("%s: %q", name, out)
	}
	run("-d", "--name", "stays", "busybox", "sleep", "1000")
	d.Restart()
	if out := d.Cleat("exec", "stays", "sh", "-c", "echo x > /file; cat /file"); out != "x" {
		d.T.Errorf("%s: exec after a restart: %q", name, out)
	}
	if out := run("--rm", "busybox", "sh", "-c", "cat /file 2>/dev/null || echo none"); out != "none" {
		d.T.Errorf("%s: another container sees %q", name, out)
	}
	if out, _, code := d.Try("run", "--rm", "--read-only", "--snapshotter", name, "busybox", "sh", "-c", "echo x > /file"); code == 0 {
		d.T.Errorf("%s: a read-only container wrote: %q", name, out)
	}
	d.Cleat("rm", "--force", "stays")
	d.Cleat("image", "rm", "busybox")
	d.Eventually("the layers are removed", func() error {
		return harness.Empty(filepath.Join(d.Root, "snapshots", name), 1)
	})
}

func TestSnapshotters_RunContainers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"overlayfs", "native", "erofs"} {
		t.Run(name, func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			eachSnapshotter(d, name)
		})
	}
	t.Run("btrfs", func(t *testing.T) {
		base := filepath.Join(snapshottest.Filesystem(t, "btrfs", 512, "", "-q"), "cleat")
		if err := os.Mkdir(base, 0o755); err != nil {
			t.Fatal(err)
		}
		d := harness.StartAt(t, base)
		d.Busybox()
		eachSnapshotter(d, "btrfs")
	})
}

func TestSnapshotter_Unsupported_NamesCause(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for name, want := range map[string]string{
		"aufs":    "has left the Linux kernel",
		"btrfs":   "not on btrfs",
		"unknown": "no such snapshotter",
	} {
		_, stderr, code := d.Try("run", "--rm", "--snapshotter", name, "busybox", "true")
		if code != 125 || !strings.Contains(stderr, want) {
			t.Errorf("%s: code %d, %s", name, code, stderr)
		}
	}
	ctx, conn := fixture.GRPC(d)
	resp, err := introspection.NewIntrospectionClient(conn).Plugins(ctx, &introspection.PluginsRequest{Filters: []string{"type==io.containerd.snapshotter.v1"}})
	harness.Must(t, err)
	got := make(map[string]string)
	for _, p := range resp.Plugins {
		got[p.ID] = p.InitErr.GetMessage()
	}
	if got["overlayfs"] != "" || !strings.Contains(got["btrfs"], "not on btrfs") || !strings.Contains(got["aufs"], "has left the Linux kernel") {
		t.Errorf("introspection returns %v", got)
	}
}
