package exitrecord

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// It records an exit with neither a block nor an inode free.
func TestWrite_FullDisk_ReusesPidFile(t *testing.T) {
	for name, tc := range map[string]struct {
		options string
		fill    func(dir string, i int) error
		pid     string
	}{
		"full": {"size=64k", func(dir string, i int) error {
			return os.WriteFile(filepath.Join(dir, "fill", strings.Repeat("x", i+1)), make([]byte, 4096), 0o600)
		}, "4711"},
		"no inodes": {"nr_inodes=20", func(dir string, i int) error {
			return os.WriteFile(filepath.Join(dir, "fill", strings.Repeat("x", i+1)), nil, 0o600)
		}, "4711"},
		"a longer file": {"nr_inodes=20", func(dir string, i int) error {
			return os.WriteFile(filepath.Join(dir, "fill", strings.Repeat("x", i+1)), nil, 0o600)
		}, strings.Repeat("4", 500)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("none", dir, "tmpfs", 0, tc.options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			if err := errors.Join(os.WriteFile(filepath.Join(dir, spareFile), []byte(tc.pid), 0o600), os.Mkdir(filepath.Join(dir, "fill"), 0o700)); err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				if err := tc.fill(dir, i); err != nil {
					if !errors.Is(err, syscall.ENOSPC) {
						t.Fatal(err)
					}
					break
				}
			}
			want := Record{ID: "c", Pid: 4711, Status: 7, ExitedAt: time.Unix(1000, 0).UTC()}
			if err := Write(dir, want); err != nil {
				t.Fatal(err)
			}
			if got, err := Read(dir); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
			if err := Write(dir, want); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("without a pid to replace: %v", err)
			}
		})
	}
}
