package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
)

func TestLockDir_AdmitsOneDaemon(t *testing.T) {
	dir := t.TempDir()
	unlock, err := LockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(t.Context(), dir); !errdefs.IsUnavailable(err) {
		t.Fatalf("a second daemon: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = LockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

// TestLockDir_OutlastsExec has another holder release the lock during the wait.
func TestLockDir_OutlastsExec(t *testing.T) {
	dir := t.TempDir()
	unlock, err := LockDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		unlock, err := LockDir(t.Context(), dir)
		if err == nil {
			err = unlock()
		}
		second <- err
	}()
	for opened := 0; opened < 2; runtime.Gosched() { // the second caller has the file open and tries to lock it
		opened = 0
		files, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if target, err := os.Readlink(f); err == nil && filepath.Dir(target) == dir {
				opened++
			}
		}
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}
