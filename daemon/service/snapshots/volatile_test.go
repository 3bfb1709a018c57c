package snapshots

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

func TestTemporarySnapshots_AreVolatile(t *testing.T) {
	low, up, work := t.TempDir(), t.TempDir(), t.TempDir()
	m := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"index=off", "workdir=" + work, "upperdir=" + up, "lowerdir=" + low}}}
	for value, want := range map[string]bool{"true": true, "false": false, "": false} {
		rec := metadata.Snapshot{Kind: snapshot.KindActive, Labels: map[string]string{LabelVolatile: value}}
		got, err := fit(t.Context(), m, rec, true)
		must(t, err)
		if slices.Contains(got[0].Options, "volatile") != want || slices.Contains(m[0].Options, "volatile") {
			t.Errorf("%q: %v", value, got)
		}
	}
	bind := []mount.Mount{{Type: "bind", Source: low, Options: []string{"rbind", "rw"}}}
	if got := throwAway(bind); len(got[0].Options) != 2 {
		t.Errorf("a bind became %v", got)
	}
	// Looked into, it can still be mounted, as often as one likes; after that, once.
	for range 2 {
		f, err := mount.Detached(mount.ToLook(throwAway(m)))
		must(t, err)
		must(t, f.Close())
	}
	at := t.TempDir()
	must(t, mount.All(throwAway(m), at))
	must(t, os.WriteFile(filepath.Join(at, "f"), nil, 0o600))
	must(t, mount.UnmountAll(at, 0))
	if err := mount.All(throwAway(m), at); err == nil {
		must(t, mount.UnmountAll(at, 0))
		t.Error("the kernel mounted it again")
	}
}

func TestKernelFrom(t *testing.T) {
	if !kernelFrom(5, 6) || !kernelFrom(4, 99) || kernelFrom(99, 0) {
		t.Error("versions are compared wrongly")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
