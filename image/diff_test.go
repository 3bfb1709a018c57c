package image_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/treecmp"
	"github.com/cleatproject/cleat/mount"
)

// Read from an overlay's upper directory or found by comparing, a difference makes the same tree.
func TestDiff_OverlayAndTree_GiveSameResult(t *testing.T) {
	scratch := t.TempDir()
	t.Setenv("TMPDIR", scratch) // without mount points of others
	s := newSnapshots(t)
	ctx := t.Context()
	commit := func(name, parent, script string) (left, right []mount.Mount) {
		t.Helper()
		right, err := s.Prepare(ctx, "key "+name, parent)
		if err != nil {
			t.Fatal(err)
		}
		at := attach(t, right)
		if out, err := exec.Command("/bin/sh", "-ec", "cd "+at+"; "+script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", err, out)
		}
		if err := mount.UnmountAll(at, 0); err != nil {
			t.Fatal(err)
		}
		if m := right[0]; m.Type == "overlay" {
			_, lower, _ := mount.OverlayDirs(m)
			left = []mount.Mount{{Type: "bind", Source: lower[0], Options: []string{"rbind", "ro"}}}
			if len(lower) > 1 {
				left = []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{m.Options[len(m.Options)-1]}}}
				for _, o := range m.Options {
					if len(o) > 9 && o[:9] == "lowerdir=" {
						left[0].Options = []string{o}
					}
				}
			}
		}
		if err := s.Commit(ctx, name, "key "+name); err != nil {
			t.Fatal(err)
		}
		return left, right
	}
	commit("1", "", "mkdir -p a/b c; echo 1 > a/b/f; echo 2 > c/g; ln c/g c/h; mkdir gone")
	commit("2", "1", "rm -r a; mkdir a; echo new > a/n; rmdir gone; chmod 700 .")
	left, right := commit("3", "2", "rm c/h; echo more >> c/g; mkfifo p; ln -s a l; rm -r a; mkdir -m 711 a")
	for name, l := range map[string][]mount.Mount{
		"read off the upper directory": left,
		"compared":                     {{Type: "bind", Source: attach(t, left), Options: []string{"rbind", "ro"}}},
	} {
		var diff bytes.Buffer
		if err := image.Diff(ctx, &diff, l, right, archive.DiffOptions{}); err != nil {
			t.Fatal(name, err)
		}
		got := t.TempDir()
		if out, err := exec.Command("cp", "-a", attach(t, left)+"/.", got).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", err, out)
		}
		if _, err := archive.Apply(ctx, got, &diff, archive.Options{}); err != nil {
			t.Fatal(name, err)
		}
		treecmp.Compare(t, got, attach(t, right))
	}
	var none bytes.Buffer
	if err := image.Diff(ctx, &none, nil, nil, archive.DiffOptions{}); err == nil {
		t.Error("diff without mounts succeeded")
	}
	if err := image.Diff(ctx, &none, nil, left, archive.DiffOptions{}); err != nil || none.Len() == 0 {
		t.Errorf("%d bytes, %v", none.Len(), err)
	}
	if left, err := filepath.Glob(filepath.Join(scratch, "cleat-diff-*")); err != nil || len(left) > 0 {
		t.Errorf("mount points are left: %q, %v", left, err)
	}
}

// attach attaches mounts for the test's time.
func attach(t *testing.T, mounts []mount.Mount) string {
	t.Helper()
	dir := t.TempDir()
	if err := mount.All(mounts, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
