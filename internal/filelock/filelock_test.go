package filelock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/filelock"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	first, second := open(t, path), open(t, path)
	for name, c := range map[string]struct {
		held, wanted int
		free         bool
	}{
		"not locked":            {unix.LOCK_UN, unix.LOCK_EX, true},
		"locked exclusively":    {unix.LOCK_EX, unix.LOCK_EX, false},
		"locked, want shared":   {unix.LOCK_EX, unix.LOCK_SH, false},
		"others read as well":   {unix.LOCK_SH, unix.LOCK_SH, true},
		"others read, to write": {unix.LOCK_SH, unix.LOCK_EX, false},
	} {
		if err := unix.Flock(int(first.Fd()), c.held); err != nil {
			t.Fatal(err)
		}
		err := filelock.Wait(over, second, c.wanted)
		if c.free && err != nil || !c.free && !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("%s: %v", name, err)
		}
		if err := unix.Flock(int(second.Fd()), unix.LOCK_UN); err != nil {
			t.Fatal(err)
		}
	}
}
