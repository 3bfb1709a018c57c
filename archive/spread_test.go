package archive_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

// It checks that ext4 puts the directories of a layer into several groups of inodes, and
// that no flag remains.
func TestSpread_UsesSeveralGroups(t *testing.T) {
	const inodesAGroup = 512
	// 64 groups of 8 MiB, each on its own.
	root := snapshottest.On(t, "ext4", "-b", "1024", "-g", "8192", "-N", fmt.Sprint(64*inodesAGroup), "-O", "^flex_bg")(t)
	before := flagsOf(t, root)
	if before&topOfTrees != 0 {
		t.Fatal("the root has the flag already")
	}
	for _, name := range []string{"a", "b"} {
		to := filepath.Join(root, name)
		if err := unix.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		data := pack(t, dir("bin/"), dir("etc/"), dir("usr/"), dir("usr/lib/"), file("usr/lib/x"), dir("var/"))
		if _, err := archive.Apply(t.Context(), to, bytes.NewReader(data), archive.Options{}); err != nil {
			t.Fatal(err)
		}
		groups := make(map[uint64]bool)
		for _, d := range []string{"bin", "etc", "usr", "var"} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(to, d), &st); err != nil {
				t.Fatal(err)
			}
			groups[(st.Ino-1)/inodesAGroup] = true
		}
		if len(groups) < 3 {
			t.Errorf("%s: four directories lie in %d group(s)", name, len(groups))
		}
		for _, d := range []string{"", "usr", "usr/lib"} {
			if got := flagsOf(t, filepath.Join(to, d)); got != before {
				t.Errorf("%s/%s is left with flags %#x, not %#x", name, d, got, before)
			}
		}
	}
}

const topOfTrees = 0x20000 // FS_TOPDIR_FL of linux/fs.h

func flagsOf(t *testing.T, dir string) uint32 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// A root that is marked already keeps its flags.
func TestSpread_KeepsExistingFlags(t *testing.T) {
	root := snapshottest.On(t, "ext4")(t)
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	want := flagsOf(t, root) | topOfTrees
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(want)); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Apply(t.Context(), root, bytes.NewReader(pack(t, dir("bin/"))), archive.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(t, root); got != want {
		t.Errorf("flags %#x, want %#x", got, want)
	}
}
