package overlay_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stacked creates a layer with a file and a directory, and calls f with a mounted snapshot on it. It
// returns the own files of the snapshot.
func stacked(t *testing.T, root string, f func(dir string)) (*overlay.Driver, string) {
	t.Helper()
	ctx := context.Background()
	d, err := overlay.Open(root)
	must(t, err)
	must(t, d.Prepare(ctx, 1, nil, snapshot.KindActive))
	must(t, os.WriteFile(filepath.Join(d.FS(1), "file"), []byte("contents"), 0o600))
	must(t, os.MkdirAll(filepath.Join(d.FS(1), "directory", "deep"), 0o700))
	_, err = d.Commit(ctx, 1)
	must(t, err)
	must(t, d.Prepare(ctx, 2, []uint64{1}, snapshot.KindActive))
	ms, err := d.Mounts(ctx, 2, []uint64{1}, snapshot.KindActive)
	must(t, err)
	at := t.TempDir()
	must(t, mount.All(ms, at))
	f(at)
	must(t, mount.UnmountAll(at, 0))
	return d, d.FS(2)
}

// If the kernel would copy only the attributes of a file
// whose mode changes, a layer made of the upper directory still has its contents.
func TestLayers_KernelWithAllFeatures_AreComplete(t *testing.T) {
	if !guest.Inside(t, guest.Options{Overlay: "metacopy=on redirect_dir=on index=on"}) {
		return
	}
	d, upper := stacked(t, t.TempDir(), func(dir string) {
		must(t, os.Chmod(filepath.Join(dir, "file"), 0o644))
		if err := unix.Rename(filepath.Join(dir, "directory"), filepath.Join(dir, "renamed")); err == nil {
			t.Error("a directory of the lower layer was renamed by reference")
		}
	})
	var layer bytes.Buffer
	must(t, archive.DiffOverlay(context.Background(), &layer, d.FS(1), upper, archive.DiffOptions{}))
	r := tar.NewReader(&layer)
	for {
		h, err := r.Next()
		must(t, err)
		if h.Name != "file" {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil || string(text) != "contents" || h.Mode&0o777 != 0o644 {
			t.Errorf("the layer has %q, mode %o, %v", text, h.Mode, err)
		}
		return
	}
}

// userNamespaceRoot is set for a test in a user namespace, to its working directory.
const userNamespaceRoot = "CLEAT_TEST_USERNS_ROOT"

// Opaque directories are marked by an attribute that root of a user namespace may write.
func TestDriver_InUserNamespace(t *testing.T) {
	root := os.Getenv(userNamespaceRoot)
	if root == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDriver_InUserNamespace$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), userNamespaceRoot+"="+t.TempDir())
		one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: one, GidMappings: one}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestDriver_InUserNamespace ") {
			t.Errorf("in a user namespace: %v\n%s", err, out)
		}
		return
	}
	d, upper := stacked(t, root, func(dir string) {
		must(t, os.RemoveAll(filepath.Join(dir, "directory")))
		must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	})
	if !d.UserXattr() {
		t.Error("it is mounted without userxattr")
	}
	var value [8]byte
	n, err := unix.Lgetxattr(filepath.Join(upper, "directory"), "user.overlay.opaque", value[:])
	if err != nil || string(value[:n]) != "y" {
		t.Errorf("the new directory is marked %q, %v", value[:max(n, 0)], err)
	}
}
