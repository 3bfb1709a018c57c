package mount_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

// owner returns the owner of a file.
func owner(t *testing.T, path string) [2]uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

func TestAll_MapsOwners(t *testing.T) {
	base := t.TempDir()
	for _, dir := range []string{"low1", "low2", "up", "work", "at"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range map[string]int{"low1/root": 0, "low2/web": 33, "low2/far": 70000} {
		path := filepath.Join(base, name)
		if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, id, id+1); err != nil {
			t.Fatal(err)
		}
	}
	if !mount.IDMappable(base) {
		t.Fatal("this file system or kernel cannot map owners")
	}
	maps := []string{"uidmap=0:100000:65536", "gidmap=0:200000:65536"}
	low1, low2 := filepath.Join(base, "low1"), filepath.Join(base, "low2")
	at := filepath.Join(base, "at")
	for name, c := range map[string]struct {
		m    mount.Mount
		want map[string][2]uint32
	}{
		"overlay": {
			mount.Mount{Type: "overlay", Source: "overlay", Options: append([]string{
				"lowerdir=" + low1 + ":" + low2, "upperdir=" + filepath.Join(base, "up"), "workdir=" + filepath.Join(base, "work"),
			}, maps...)},
			map[string][2]uint32{"root": {100000, 200001}, "web": {100033, 200034}, "far": {65534, 65534}},
		},
		"bind": {mount.Mount{Type: "bind", Source: low2, Options: append([]string{"rbind", "ro"}, maps...)}, map[string][2]uint32{"web": {100033, 200034}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := mount.All([]mount.Mount{c.m}, at); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if got := owner(t, filepath.Join(at, file)); got != want {
					t.Errorf("%s is of %v, want %v", file, got, want)
				}
			}
			f, err := mount.Detached([]mount.Mount{c.m})
			if err != nil {
				t.Fatal(err)
			}
			if got := owner(t, filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd())), "web")); got != c.want["web"] {
				t.Errorf("detached, web is of %v", got)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if err := mount.UnmountAll(at, 0); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got := owner(t, low2+"/web"); got != [2]uint32{33, 34} {
		t.Errorf("the layer's own file is of %v", got)
	}
}

func TestAll_RefusesBadIDMappings(t *testing.T) {
	dir := t.TempDir()
	for _, options := range [][]string{
		{"uidmap=0:1:1"},
		{"uidmap=", "gidmap=0:1:1"},
		{"uidmap=0:1", "gidmap=0:1:1"},
		{"uidmap=0:1:0", "gidmap=0:1:1"},
		{"uidmap=0:-1:1", "gidmap=0:1:1"},
		{"uidmap=0:4294967296:1", "gidmap=0:1:1"},
		{"uidmap=a:b:c", "gidmap=0:1:1"},
	} {
		err := mount.All([]mount.Mount{{Type: "bind", Source: dir, Options: append(options, "rbind")}}, dir)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", options, err)
		}
	}
}
