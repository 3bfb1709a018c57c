package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// cgroupsNamed returns the cgroups of a name at the root and below the daemon's own, in every hierarchy.
func cgroupsNamed(d *harness.Daemon, name string) (found []string) {
	d.T.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		for _, parent := range []string{"", d.Cgroup()} {
			dirs, err := filepath.Glob(filepath.Join(pattern, parent, name))
			harness.Must(d.T, err)
			for _, dir := range dirs {
				if info, err := os.Lstat(dir); err == nil && info.IsDir() {
					found = append(found, dir)
				}
			}
		}
	}
	return found
}

// TestNamespaceRemove_RemovesCgroups runs a container by cleat and one by ctr, whose cgroups differ.
func TestNamespaceRemove_RemovesCgroups(t *testing.T) {
	t.Parallel()
	d := harness.StartUncollected(t)
	name := fmt.Sprintf("ns-%d", os.Getpid())
	d.Cleat("namespace", "create", name)
	d.Cleat("--namespace", name, "image", "import", "--name", "docker.io/library/busybox:latest", harness.BusyboxArchive(t))
	ctr := exec.Command("ctr", "--address", d.Address, "--namespace", name, "run", "--rm", "docker.io/library/busybox:latest", "one", "true")
	if out, err := ctr.CombinedOutput(); err != nil {
		t.Fatalf("ctr run: %v: %s", err, out)
	}
	d.Cleat("--namespace", name, "run", "-d", "--name", "two", "busybox", "sleep", "1000")
	if len(cgroupsNamed(d, name)) == 0 {
		t.Fatal("the namespace has no cgroup to remove")
	}
	d.Cleat("--namespace", name, "rm", "--force", "two")
	d.Cleat("--namespace", name, "image", "rm", "busybox")
	d.GC()
	d.Cleat("namespace", "rm", name)
	if left := cgroupsNamed(d, name); len(left) > 0 {
		t.Errorf("cgroups are left: %s", strings.Join(left, " "))
	}
}

// TestNamespaceCgroups_AfterLastContainer_AreRemoved keeps the namespace; tasks start and end in another one.
func TestNamespaceCgroups_AfterLastContainer_AreRemoved(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	own := func(name string) error {
		if left := cgroupsNamed(d, filepath.Join(d.Cgroup(), name)); len(left) > 0 {
			return errors.New(strings.Join(left, " "))
		}
		return nil
	}
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	if own("default") == nil {
		t.Fatal("a running container has no cgroup")
	}
	harness.Parallel(20, func(int) { d.Cleat("run", "--rm", "busybox", "true") })
	if own("default") == nil {
		t.Fatal("the cgroup of a namespace with a container was removed")
	}
	d.Cleat("rm", "--force", "c")
	d.Eventually("the cgroup of the empty namespace is removed", func() error { return own("default") })
	d.Cleat("run", "--rm", "busybox", "true")
}
