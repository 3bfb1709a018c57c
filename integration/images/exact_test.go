package images

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/internal/treecmp"
	"github.com/cleatproject/cleat/mount"
)

// layerScripts create the layers of an image with every kind of file.
var layerScripts = []string{
	`mkdir -p bin etc dev deep/er/still gone opaque; cp /bin/busybox bin/; ln bin/busybox bin/sh; ln -s busybox bin/ls
	chmod 4755 bin/busybox
	echo one > etc/conf; chown 1000:1001 etc/conf; touch -d '2001-02-03 04:05:06.789' etc/conf; mkfifo dev/pipe; mknod dev/null c 1 3; mknod dev/disk b 8 1
	truncate -s 1M sparse; echo end >> sparse; echo x > gone/file; echo x > opaque/below; mkdir -m 1777 tmp; echo 'odd' > "$(printf 'odd \303\251 name')"
	ln -s /nowhere/at/all dangling; echo x > deep/er/still/file; chown 3000000:3000001 deep; chmod 2770 deep`,
	`rm -r gone; rm -r opaque; mkdir opaque; echo above > opaque/above; mv etc/conf etc/moved; rm bin/ls; ln bin/busybox bin/cat
	rm dangling; mkdir dangling; echo y > dangling/in; chmod 700 deep/er; touch -d '1999-01-01 00:00:00.5' deep/er/still`,
	`rm -r deep/er; echo new > deep/er; echo more >> sparse; ln -s tmp opaque/link; rm dev/disk; mknod dev/disk c 5 0; echo again > etc/conf`,
}

// runTool runs a program, which must succeed.
func runTool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// umociImage builds an image with umoci, one layer for each script, and unpacks it with umoci as well.
func umociImage(t *testing.T) (layout, unpacked string) {
	t.Helper()
	base := t.TempDir()
	layout = filepath.Join(base, "layout")
	runTool(t, "umoci", "init", "--layout", layout)
	runTool(t, "umoci", "new", "--image", layout+":v0")
	for i, script := range layerScripts {
		bundle := filepath.Join(base, fmt.Sprint("bundle", i))
		runTool(t, "umoci", "unpack", "--image", fmt.Sprintf("%s:v%d", layout, i), bundle)
		shell(t, "cd "+bundle+"/rootfs\n"+script)
		if i == 0 {
			harness.Must(t, unix.Setxattr(bundle+"/rootfs/etc", "user.note", []byte("text"), 0))
			harness.Must(t, unix.Setxattr(bundle+"/rootfs/bin/busybox", "security.capability", append([]byte{1, 0, 0, 2, 0, 4}, make([]byte, 14)...), 0))
		}
		runTool(t, "umoci", "repack", "--image", fmt.Sprintf("%s:v%d", layout, i+1), bundle)
	}
	last := fmt.Sprintf("%s:v%d", layout, len(layerScripts))
	unpacked = filepath.Join(base, "unpacked")
	runTool(t, "umoci", "unpack", "--image", last, unpacked)
	return last, filepath.Join(unpacked, "rootfs")
}

// Foreign images are unpacked to the same files as by other tools.
func TestUnpack_EqualsUmoci(t *testing.T) {
	t.Parallel()
	image, want := umociImage(t)
	archives := t.TempDir()
	d := harness.Start(t)
	for _, format := range []string{"oci-archive", "docker-archive"} {
		path := filepath.Join(archives, format+".tar")
		runTool(t, "skopeo", "copy", "oci:"+image, format+":"+path+":docker.io/library/exact:latest")
		for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
			t.Run(format+" on "+snapshotter, func(t *testing.T) {
				unpacked(d, t, path, snapshotter, len(layerScripts), func(got string) { treecmp.Compare(t, got, want) })
			})
		}
	}
}

// unpacked imports an archive of one image, calls show on the unpacked tree, and removes the image.
func unpacked(d *harness.Daemon, t *testing.T, archive, snapshotter string, layers int, look func(root string)) {
	t.Helper()
	ctx, conn := fixture.GRPC(d)
	c := snapshotsapi.NewSnapshotsClient(conn)
	d.Cleat("image", "import", "--name", "exact", "--snapshotter", snapshotter, archive)
	stream, err := c.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: snapshotter})
	harness.Must(t, err)
	msg, err := stream.Recv()
	harness.Must(t, err)
	parents := make(map[string]bool)
	for _, info := range msg.Info {
		parents[info.Parent] = true
	}
	var top []string
	for _, info := range msg.Info {
		if !parents[info.Name] {
			top = append(top, info.Name)
		}
	}
	if len(msg.Info) != layers || len(top) != 1 {
		t.Fatalf("snapshots %v", msg.Info)
	}
	const key = "view"
	view, err := c.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: snapshotter, Key: key, Parent: top[0], Labels: map[string]string{"containerd.io/gc.root": "1"}})
	harness.Must(t, err)
	at := t.TempDir()
	var mounts []mount.Mount
	for _, m := range view.Mounts {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	harness.Must(t, mount.All(mounts, at))
	look(at)
	harness.Must(t, mount.UnmountAll(at, 0))
	_, err = c.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: snapshotter, Key: key})
	harness.Must(t, err)
	d.Cleat("image", "rm", "exact")
	d.Eventually("the snapshots are removed", func() error {
		if n := len(strings.Fields(list(d, snapshotter))); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

// list returns the names of a snapshotter's directories.
func list(d *harness.Daemon, snapshotter string) string {
	d.T.Helper()
	entries, err := filepath.Glob(filepath.Join(d.Root, "snapshots", snapshotter, "[0-9]*"))
	harness.Must(d.T, err)
	return strings.Join(entries, " ")
}
