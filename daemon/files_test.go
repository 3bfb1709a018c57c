package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
)

func TestLockDirAdmitsOneDaemon(t *testing.T) {
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

// TestLockDirOutlastsTheMomentBeforeAnExec has somebody hold the lock who lets it go while it is waited for.
func TestLockDirOutlastsTheMomentBeforeAnExec(t *testing.T) {
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
	for opened := 0; opened < 2; runtime.Gosched() { // the second one has the file and tries
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
