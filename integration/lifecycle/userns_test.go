package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// Root in a user namespace owns the image's files, and its new files belong to the mapped user of the host. Clients
// of 1.6 mount snapshots themselves and do not support mounts that map owners.
func TestUserNamespace_Containers(t *testing.T) {
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o711))
	scratch := filepath.Join(base, "tmp")
	harness.Must(t, os.Mkdir(scratch, 0o711))
	t.Setenv("TMPDIR", scratch) // not shared with other users
	d := harness.StartAt(t, base)
	for _, dir := range []string{d.Root, d.State} {
		harness.Must(t, os.Chmod(dir, 0o711))
	}
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := harness.Ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: %s%s", args, stderr, d.Log())
		}
		return strings.TrimSpace(stdout)
	}
	d.Busybox()
	for _, snapshotter := range []string{"native"} {
		d.Eventually("the container prints the owners of its files", func() error { // of a program that exits at once ctr may lose the output
			out := ok("run", "--rm", "--snapshotter", snapshotter, "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels",
				"docker.io/library/busybox:latest", "c-"+snapshotter, "/bin/sh", "-c",
				"cat /proc/self/uid_map; stat -c %u:%g /bin/busybox /; echo x > /new; chown 5:6 /new; stat -c %u:%g /new")
			if got := strings.Join(strings.Fields(out), " "); got != "0 100000 65536 0:0 0:0 5:6" {
				return fmt.Errorf("%s: %q", snapshotter, got)
			}
			return nil
		})
	}
	for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
		out := d.Cleat("run", "--rm", "--snapshotter", snapshotter, "--uidmap", "0:100000:65536", "--user", "web", "busybox", "sh", "-c",
			"id -u; stat -c %u:%g /bin/busybox /; cat /etc/passwd >/dev/null && echo read; echo x > /tmp/new; stat -c %u:%g /tmp/new")
		if got := strings.Join(strings.Fields(out), " "); got != "1000 0:0 0:0 read 1000:1001" {
			t.Errorf("%s: the container prints %q", snapshotter, got)
		}
	}
	d.Cleat("run", "-d", "--name", "stays", "--uidmap", "0:100000:65536", "busybox", "sh", "-c", "echo x > /new; sleep 1000")
	d.Eventually("the file belongs to the mapped user of the host", func() error {
		found, err := filepath.Glob(filepath.Join(d.Root, "snapshots", "overlayfs", "*", "fs", "new"))
		if err != nil || len(found) != 1 {
			return errors.Join(err, fmt.Errorf("found %q", found))
		}
		info, err := os.Stat(found[0])
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 100000 || st.Gid != 100000 {
			return fmt.Errorf("owner %d:%d", st.Uid, st.Gid)
		}
		return nil
	})
	d.Restart()
	if out := d.Cleat("exec", "stays", "stat", "-c", "%u", "/bin/sh"); out != "0" {
		t.Errorf("owner of the image's files after a restart: %q", out)
	}
	d.Cleat("rm", "--force", "stays")
	d.Cleat("image", "rm", "busybox")
	left, err := filepath.Glob(filepath.Join(scratch, "cleat-owners-*"))
	harness.Must(t, err)
	if len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// In a commit of a container in a user namespace, files keep their owners inside the namespace.
func TestUserNamespace_Commit_KeepsOwners(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o711))
	d := harness.StartAt(t, base)
	for _, dir := range []string{d.Root, d.State} {
		harness.Must(t, os.Chmod(dir, 0o711))
	}
	d.Busybox()
	for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
		d.Cleat("run", "-d", "--name", "c", "--snapshotter", snapshotter, "--uidmap", "0:100000:65536", "busybox", "sh", "-c",
			"echo x > /new; mkdir /dir; touch /dir/web; chown 1000:1001 /dir/web; rm /etc/group; touch /ready; exec sleep 1000")
		d.Ready("c")
		d.Cleat("commit", "c", "made")
		m, _, _ := d.ImageDocuments("made")
		if size := m.Layers[1].Size; size > 4096 {
			t.Errorf("%s: the layer of %d bytes has unchanged files", snapshotter, size)
		}
		for _, args := range [][]string{{}, {"--uidmap", "0:200000:65536"}} {
			out := d.Cleat(append(append([]string{"run", "--rm"}, args...), "made", "sh", "-c", "stat -c %u:%g / /new /dir /dir/web /bin/sh; test -e /etc/group || echo gone")...)
			if got := strings.Join(strings.Fields(out), " "); got != "0:0 0:0 0:0 1000:1001 0:0 gone" {
				t.Errorf("%s, %q: %q", snapshotter, args, got)
			}
		}
		d.Cleat("rm", "--force", "c")
		d.Cleat("image", "rm", "made")
	}
	d.Cleat("image", "rm", "busybox")
}
