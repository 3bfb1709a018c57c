package mount_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
)

// loops returns the number of loop devices of a file.
func loops(t *testing.T, image string) (n int) {
	t.Helper()
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backing {
		if name, err := os.ReadFile(b); err == nil && strings.TrimSpace(string(name)) == image {
			n++
		}
	}
	return n
}

// detached waits until a file has no loop device. One stays until the last mount namespace with
// its file system is gone, and a container that is created concurrently begins with a copy of this one.
func detached(t *testing.T, image string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); loops(t, image) > 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d loop devices are left", loops(t, image))
		}
	}
}

func ext4Image(t *testing.T) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("mkfs.ext4", "-q", image, "8M").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return image
}

func TestLoop_DevicesEndWithMounts(t *testing.T) {
	image, dir := ext4Image(t), t.TempDir()
	for _, access := range []string{"rw", "ro"} {
		if err := mount.All([]mount.Mount{{Type: "ext4", Source: image, Options: []string{"loop", access}}}, dir); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644)
		if ro := errors.Is(err, unix.EROFS); ro != (access == "ro") {
			t.Errorf("%s: writing gave %v", access, err)
		}
		if n := loops(t, image); n != 1 {
			t.Errorf("%d loop devices", n)
		}
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Fatal(err)
		}
		detached(t, image)
	}
}

func TestLoop_FailedMount_LeavesNoDevice(t *testing.T) {
	image := filepath.Join(t.TempDir(), "no file system")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mount.All([]mount.Mount{{Type: "ext4", Source: image, Options: []string{"loop"}}}, t.TempDir()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	detached(t, image)
	if err := mount.All([]mount.Mount{{Type: "ext4", Source: image + "-missing", Options: []string{"loop"}}}, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestLoop_ParallelMounts(t *testing.T) {
	image := ext4Image(t)
	var wg sync.WaitGroup
	for range 8 {
		dir := t.TempDir()
		wg.Go(func() {
			err := mount.All([]mount.Mount{{Type: "ext4", Source: image, Options: []string{"loop", "ro", "noload"}}}, dir)
			if err == nil {
				err = mount.UnmountAll(dir, 0)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	detached(t, image)
}
