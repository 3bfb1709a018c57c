package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cgroupsNamed returns the cgroups of a name at the root and below the daemon's own, in every hierarchy.
func (d *Daemon) cgroupsNamed(name string) (found []string) {
	d.t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		for _, parent := range []string{"", d.cgroup()} {
			dirs, err := filepath.Glob(filepath.Join(pattern, parent, name))
			must(d.t, err)
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
	d := startUncollected(t)
	name := fmt.Sprintf("ns-%d", os.Getpid())
	d.Cleat("namespace", "create", name)
	d.Cleat("--namespace", name, "image", "import", "--name", "docker.io/library/busybox:latest", busyboxArchive(t))
	ctr := exec.Command("ctr", "--address", d.Address, "--namespace", name, "run", "--rm", "docker.io/library/busybox:latest", "one", "true")
	if out, err := ctr.CombinedOutput(); err != nil {
		t.Fatalf("ctr run: %v: %s", err, out)
	}
	d.Cleat("--namespace", name, "run", "-d", "--name", "two", "busybox", "sleep", "1000")
	if len(d.cgroupsNamed(name)) == 0 {
		t.Fatal("the namespace has no cgroup to remove")
	}
	d.Cleat("--namespace", name, "rm", "--force", "two")
	d.Cleat("--namespace", name, "image", "rm", "busybox")
	d.gc()
	d.Cleat("namespace", "rm", name)
	if left := d.cgroupsNamed(name); len(left) > 0 {
		t.Errorf("cgroups are left: %s", strings.Join(left, " "))
	}
}

// TestNamespaceCgroups_AfterLastContainer_AreRemoved keeps the namespace; tasks start and end in another one.
func TestNamespaceCgroups_AfterLastContainer_AreRemoved(t *testing.T) {
	d := Start(t)
	d.Busybox()
	own := func(name string) error {
		if left := d.cgroupsNamed(filepath.Join(d.cgroup(), name)); len(left) > 0 {
			return errors.New(strings.Join(left, " "))
		}
		return nil
	}
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	if own("default") == nil {
		t.Fatal("a running container has no cgroup")
	}
	parallel(20, func(int) { d.Cleat("run", "--rm", "busybox", "true") })
	if own("default") == nil {
		t.Fatal("the cgroup of a namespace with a container was removed")
	}
	d.Cleat("rm", "--force", "c")
	d.Eventually("the cgroup of the empty namespace is removed", func() error { return own("default") })
	d.Cleat("run", "--rm", "busybox", "true")
}
