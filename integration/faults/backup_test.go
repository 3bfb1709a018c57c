package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// A copy of the root directory is made while a container runs. On a host without other state it restores the record
// and files of the container, and the images.
func TestBackup_Restored_HasContainersAndImages(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "--detach", "--name", "c", "busybox", "sh", "-c", "echo written > /file; sleep 1000")
	d.Eventually("the file is written", func() error {
		_, err := exec.CommandContext(t.Context(), harness.Binary("cleat"), "--address", d.Address, "exec", "c", "cat", "/file").Output()
		return err
	})
	d.Stop()
	backup := filepath.Join(t.TempDir(), "cleat")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", d.Root, backup).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, out)
	}
	d.Begin()
	d.Status("c", "running")
	d.Cleat("rm", "--force", "c")
	d.Cleat("image", "rm", "busybox")
	d.Stop()
	harness.Must(t, os.RemoveAll(d.Root))
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", backup, d.Root).CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	d.Begin()
	d.Status("c", "stopped")
	d.Cleat("commit", "c", "saved:1")
	if got := d.Cleat("run", "--rm", "saved:1", "cat", "/file"); got != "written" {
		t.Errorf("the file holds %q", got)
	}
	if got := d.Cleat("run", "--rm", "busybox", "echo", "hello"); got != "hello" {
		t.Errorf("the image prints %q", got)
	}
	d.Cleat("rm", "c")
}
