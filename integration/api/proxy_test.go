package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// proxied starts a daemon with a snapshotter "far", which the process at an address provides.
func proxied(t *testing.T, address, snapshotter string) *harness.Daemon {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, "[proxy_plugins.far]\ntype = \"snapshot\"\naddress = %q\nsnapshotter = %q\n", address, snapshotter), 0o600))
	return harness.Start(t, "--config", config)
}

// life uses a snapshotter over the API, from the first snapshot to the last.
func life(d *harness.Daemon, name string) {
	d.T.Helper()
	t := d.T
	ctx, conn := fixture.GRPC(d)
	c := snapshotsapi.NewSnapshotsClient(conn)
	root := map[string]string{"containerd.io/gc.root": "1"}
	p, err := c.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: name, Key: "key", Labels: root})
	harness.Must(t, err)
	m, err := c.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: name, Key: "key"})
	harness.Must(t, err)
	if len(m.Mounts) != len(p.Mounts) || m.Mounts[0].Source != p.Mounts[0].Source {
		t.Errorf("mounts %v, before %v", m.Mounts, p.Mounts)
	}
	_, err = c.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: name, Name: "name", Key: "key", Labels: root})
	harness.Must(t, err)
	_, err = c.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: name, Key: "view", Parent: "name", Labels: root})
	harness.Must(t, err)
	s, err := c.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: name, Key: "view"})
	harness.Must(t, err)
	if s.Info.Parent != "name" || s.Info.Kind != snapshotsapi.Kind_VIEW {
		t.Errorf("stat: %v", s.Info)
	}
	u, err := c.Usage(ctx, &snapshotsapi.UsageRequest{Snapshotter: name, Key: "name"})
	harness.Must(t, err)
	if u.Inodes == 0 {
		t.Errorf("usage %v", u)
	}
	stream, err := c.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: name})
	harness.Must(t, err)
	list, err := stream.Recv()
	harness.Must(t, err)
	if len(list.Info) != 2 {
		t.Errorf("list %v", list.Info)
	}
	_, err = c.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: name, Key: "name"})
	if !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Errorf("removal of a parent: %v", err)
	}
	for _, key := range []string{"view", "name"} {
		_, err = c.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: name, Key: key})
		harness.Must(t, err)
	}
}

// containers runs containers on a snapshotter, over a restart of the daemon.
func containers(d *harness.Daemon, name string) {
	d.T.Helper()
	d.Busybox()
	run := func(args ...string) string {
		return d.Cleat(append([]string{"run", "--snapshotter", name}, args...)...)
	}
	if out := run("--rm", "busybox", "sh", "-c", "rm /bin/cat; echo x > /file; ls /file"); out != "/file" {
		d.T.Errorf("the container prints %q", out)
	}
	run("-d", "--name", "stays", "busybox", "sleep", "1000")
	d.Restart()
	if out := d.Cleat("exec", "stays", "cat", "/etc/group"); !strings.HasPrefix(out, "root:") {
		d.T.Errorf("after a restart: %q", out)
	}
	d.Cleat("rm", "--force", "stays")
	d.Cleat("image", "rm", "busybox")
}

func TestProxySnapshotter_Containerd(t *testing.T) {
	t.Parallel()
	peer := harness.StartContainerd(t)
	d := proxied(t, peer.Address, "overlayfs")
	life(d, "far")
	containers(d, "far")
	d.Eventually("nothing is left in the other process", func() error {
		stdout, stderr, code := peer.Ctr("snapshots", "ls")
		if code != 0 || strings.Contains(stdout, "cleat-") {
			return fmt.Errorf("%s%s", stdout, stderr)
		}
		return nil
	})
}

func TestProxySnapshotter_OtherCleatd(t *testing.T) {
	t.Parallel()
	far := harness.Start(t)
	for _, snapshotter := range []string{"native", "overlayfs"} {
		d := proxied(t, far.Address, snapshotter)
		life(d, "far")
		containers(d, "far")
		far.Eventually("nothing is left in the other process", func() error {
			return harness.Empty(filepath.Join(far.Root, "snapshots", snapshotter), 1)
		})
	}
}

// A daemon without its proxy snapshotter provides everything else, and cleans up after reconnecting.
func TestProxySnapshotter_Absent(t *testing.T) {
	t.Parallel()
	far := harness.Start(t)
	d := proxied(t, far.Address, "overlayfs")
	d.Busybox()
	d.Cleat("run", "-d", "--name", "stays", "--snapshotter", "far", "busybox", "sleep", "1000")
	far.Kill9()
	_, stderr, code := d.Try("run", "--rm", "--snapshotter", "far", "busybox", "true")
	if code != 125 || !strings.Contains(stderr, far.Address) {
		t.Errorf("code %d, %s", code, stderr)
	}
	if out := d.Cleat("run", "--rm", "busybox", "echo", "here"); out != "here" {
		t.Errorf("the container prints %q", out)
	}
	d.Cleat("rm", "--force", "stays")
	if _, stderr, code := d.Try("image", "rm", "busybox"); code != 1 || !strings.Contains(stderr, "busybox:latest is removed, its content is not") {
		t.Errorf("code %d, %s", code, stderr)
	}
	far.Begin()
	d.Restart()
	far.Eventually("nothing is left in the other process", func() error {
		return harness.Empty(filepath.Join(far.Root, "snapshots", "overlayfs"), 1)
	})
}
