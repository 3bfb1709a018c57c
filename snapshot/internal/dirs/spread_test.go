package dirs_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/snapshot/internal/dirs"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

const topOfTrees = 0x20000 // FS_TOPDIR_FL of linux/fs.h

func flagsOf(t *testing.T, dir string) uint32 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// TestSnapshotsAreTopsOfTrees has ext4 told so of the directories of snapshots, and of nothing else.
func TestSnapshotsAreTopsOfTrees(t *testing.T) {
	root := filepath.Join(snapshottest.Filesystem(t, "ext4", 64, "", "-q"), "driver")
	var before uint32
	for _, again := range []bool{false, true} { // as a daemon that is started again
		d, err := dirs.Open(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		flags := flagsOf(t, root)
		if flags&topOfTrees == 0 {
			t.Errorf("again %v: the root has flags %#x, without %#x", again, flags, topOfTrees)
		}
		if again && flags != before {
			t.Errorf("flags became %#x, had been %#x", flags, before)
		}
		before = flags
		if err := d.Create(t.Context(), 1, func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if flags := flagsOf(t, d.Path(1)); flags&topOfTrees != 0 {
			t.Errorf("a snapshot has flags %#x", flags)
		}
	}
}

// TestRootsWithoutThatAdvice has file systems that know nothing of it.
func TestRootsWithoutThatAdvice(t *testing.T) {
	for _, fsType := range []string{"xfs", "btrfs"} {
		root := filepath.Join(snapshottest.Filesystem(t, fsType, 512, "", "-q"), "driver")
		d, err := dirs.Open(root, nil)
		if err != nil {
			t.Fatalf("%s: %v", fsType, err)
		}
		if err := d.Create(t.Context(), 1, func(string) error { return nil }); err != nil {
			t.Errorf("%s: %v", fsType, err)
		}
	}
}
