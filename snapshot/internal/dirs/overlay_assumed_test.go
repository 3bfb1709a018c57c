package dirs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// It opens the same directory with free space, full,
// without inodes and read-only.
func TestOverlayOptions_DiskTakesNoWrites_EqualProbedOnes(t *testing.T) {
	for name, spoil := range map[string]struct {
		options string
		fill    func(t *testing.T, dir string)
	}{
		"full": {"size=64k", func(t *testing.T, dir string) {
			f, err := os.Create(filepath.Join(dir, "fill"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
		}},
		"no inodes": {"nr_inodes=20", func(_ *testing.T, dir string) {
			for err := error(nil); err == nil; {
				_, err = os.MkdirTemp(dir, "x")
			}
		}},
		"read-only": {"", func(t *testing.T, dir string) {
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("none", dir, "tmpfs", 0, spoil.options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			d, err := Open(filepath.Join(dir, "d"), nil)
			if err != nil {
				t.Fatal(err)
			}
			want, err := OverlayOptions(d)
			if err != nil {
				t.Fatal(err)
			}
			spoil.fill(t, dir)
			_, err = probeOverlay(d)
			if err == nil {
				t.Fatal("the disk takes writes")
			}
			if d.Untried(err) == nil {
				t.Error("a driver without snapshots counts as one that works")
			}
			if !takesNoWrites(err) || d.Untried(os.ErrInvalid) == nil {
				t.Errorf("the probe's error %v does not count as the disk's", err)
			}
			if got, err := OverlayOptions(d); err != nil || !slices.Equal(got, want) {
				t.Errorf("options %q, %v; want %q", got, err, want)
			}
		})
	}
}
