package snapshottest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/mount"
)

// Filesystem creates a file system of a type (with further arguments of mkfs) in a file of the given
// MiB, mounts it by a loop device with mount's options, and returns the mount point. It is removed when the test
// ends.
func Filesystem(t *testing.T, fsType string, mib int64, options string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(mib << 20)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+fsType, append(args, image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fsType, err, out)
	}
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	m := mount.Mount{Type: fsType, Source: image, Options: []string{"loop"}}
	if options != "" {
		m.Options = append(m.Options, options)
	}
	if err := mount.All([]mount.Mount{m}, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

// On returns Config.Root for drivers on a file system of their own, created by Filesystem: their
// syncs do not wait for other writers.
func On(t *testing.T, fsType string, args ...string) func(*testing.T) string {
	t.Helper()
	base := Filesystem(t, fsType, 512, "", append([]string{"-q"}, args...)...)
	return func(t *testing.T) string { return emptyDir(t, base) }
}

func emptyDir(t *testing.T, base string) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "root-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Quotas is a file system with project quotas.
type Quotas struct{ Type, Root string }

// WithProjectQuotas creates one of each type that supports project quotas. The kernel must support them, see
// internal/guest.
func WithProjectQuotas(t *testing.T) []Quotas {
	t.Helper()
	return []Quotas{WithProjectQuota(t, "xfs"), WithProjectQuota(t, "ext4")}
}

// WithProjectQuota creates one of a type, xfs or ext4, of 512 MiB.
func WithProjectQuota(t *testing.T, fsType string) Quotas {
	t.Helper()
	args := []string{"-q"}
	if fsType == "ext4" {
		args = append(args, "-O", "quota,project", "-E", "quotatype=prjquota")
	}
	return Quotas{fsType, Filesystem(t, fsType, 512, "prjquota", args...)}
}

// Dir creates an empty directory there: it is Config.Root.
func (q Quotas) Dir(t *testing.T) string { return emptyDir(t, q.Root) }
