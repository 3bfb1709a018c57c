package snapshots

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

func remapped() map[string]string {
	return map[string]string{LabelUIDMapping: "0:100000:65536", LabelGIDMapping: "0:200000:65536"}
}

// Files are given to their owners in the namespace once each, with what chown would remove.
func TestOwners_WithoutIDMapping_AreChanged(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.WriteFile(at("f"), []byte("x"), 0o644))
	must(t, os.Link(at("f"), at("g")))
	must(t, os.Chmod(at("f"), 0o755|os.ModeSetuid))
	must(t, os.Symlink("/etc/passwd", at("l")))
	must(t, os.WriteFile(at("far"), nil, 0o600))
	must(t, os.Chown(at("far"), 70000, 70000))
	caps := append([]byte{1, 0, 0, 2}, bytes.Repeat([]byte{0, 4, 0, 0}, 4)...)
	must(t, os.WriteFile(at("caps"), nil, 0o755))
	must(t, unix.Setxattr(at("caps"), capability, caps, 0))
	before, err := os.Lstat("/etc/passwd")
	must(t, err)
	rec := metadata.Snapshot{Kind: snapshot.KindActive, Labels: remapped()}
	bind := []mount.Mount{{Type: "bind", Source: root, Options: []string{"rbind", "rw"}}}
	got, err := fit(t.Context(), bind, rec, true)
	must(t, err)
	if len(got) != 1 || len(got[0].Options) != 2 {
		t.Errorf("mounts are %v", got)
	}
	for name, want := range map[string][3]uint32{
		".": {100000, 200000, 0}, "f": {100000, 200000, 0o4755}, "g": {100000, 200000, 0o4755}, "l": {100000, 200000, 0}, "far": {70000, 70000, 0o600},
	} {
		var st unix.Stat_t
		must(t, unix.Lstat(at(name), &st))
		if st.Uid != want[0] || st.Gid != want[1] || want[2] != 0 && st.Mode&0o7777 != want[2] {
			t.Errorf("%s is of %d:%d with mode %o", name, st.Uid, st.Gid, st.Mode)
		}
	}
	var value [64]byte
	n, err := unix.Lgetxattr(at("caps"), capability, value[:])
	must(t, err)
	if n != 24 || value[3] != 3 || !bytes.Equal(value[4:20], caps[4:]) || !bytes.Equal(value[20:24], []byte{0xa0, 0x86, 1, 0}) {
		t.Errorf("capabilities are % x", value[:n])
	}
	after, err := os.Lstat("/etc/passwd")
	must(t, err)
	if after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid {
		t.Error("a link was followed")
	}
	if _, err := fit(t.Context(), bind, rec, false); err != nil {
		t.Error(err)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(at("f"), &st))
	if st.Uid != 100000 {
		t.Errorf("the owner was changed again, to %d", st.Uid)
	}
}

func TestOwners_BelowOverlay_AreMapped(t *testing.T) {
	low, up, work := t.TempDir(), t.TempDir(), t.TempDir()
	m := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"workdir=" + work, "upperdir=" + up, "lowerdir=" + low}}}
	got, err := fit(t.Context(), m, metadata.Snapshot{Kind: snapshot.KindActive, Labels: remapped()}, true)
	must(t, err)
	if o := got[0].Options; len(o) != 5 || o[3] != "uidmap=0:100000:65536" || len(m[0].Options) != 3 {
		t.Errorf("options are %q", o)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(up, &st))
	if st.Uid != 100000 || st.Gid != 200000 {
		t.Errorf("the upper directory is of %d:%d", st.Uid, st.Gid)
	}
}

func TestOwners_BadLabels_AreRefused(t *testing.T) {
	for _, labels := range []map[string]string{
		{LabelUIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:1", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:1:0", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:1:1,", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:10:5,4:20:5", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:10:5,5:14:5", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: strings.Repeat("0:1:1,", 400) + "0:1:1", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "0:4294967295:1", LabelGIDMapping: "0:1:1"},
		{LabelUIDMapping: "a:b:c", LabelGIDMapping: "0:1:1"},
	} {
		if _, err := OwnersOf(labels); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", labels, err)
		}
	}
	if o, err := OwnersOf(map[string]string{"other": "x"}); o != nil || err != nil {
		t.Errorf("%v, %v", o, err)
	}
}

func TestOwners_AreRestored(t *testing.T) {
	o, err := OwnersOf(map[string]string{LabelUIDMapping: "0:100000:65536", LabelGIDMapping: "0:200000:65536"})
	must(t, err)
	second := make([]byte, 20)
	second[3], second[4] = 2, 0x55 // revision 2, some capability
	given := string(o.capabilities(second))
	if len(given) != 24 {
		t.Fatalf("%q", given)
	}
	for _, c := range []struct {
		uid, gid, wantUID, wantGID uint32
		caps, wantCaps             string
	}{
		{100000, 200000, 0, 0, given, string(second)},
		{101000, 201001, 1000, 1001, "", ""},
		{165535, 265535, 65535, 65535, string(second), string(second)},
		{5, 6, 5, 6, "", ""}, // not mapped
	} {
		uid, gid, caps := o.Back(c.uid, c.gid, c.caps)
		if uid != c.wantUID || gid != c.wantGID || caps != c.wantCaps {
			t.Errorf("%d:%d %q is %d:%d %q", c.uid, c.gid, c.caps, uid, gid, caps)
		}
	}
}

func TestOwners_SeveralRanges(t *testing.T) {
	labels := map[string]string{LabelUIDMapping: "0:100000:10,1000:1000:1,10:100010:90", LabelGIDMapping: "0:200000:5, 5:300000:5"}
	o, err := OwnersOf(labels)
	must(t, err)
	if o.options[0] != "uidmap="+labels[LabelUIDMapping] {
		t.Errorf("options are %q", o.options)
	}
	for _, c := range []struct{ uid, gid, wantUID, wantGID uint32 }{
		{0, 0, 100000, 200000}, {9, 4, 100009, 200004}, {10, 5, 100010, 300000}, {99, 9, 100099, 300004}, {1000, 10, 1000, 10}, {100, 11, 100, 11},
	} {
		if uid, gid := o.uid.to(c.uid), o.gid.to(c.gid); uid != c.wantUID || gid != c.wantGID {
			t.Errorf("%d:%d is given to %d:%d", c.uid, c.gid, uid, gid)
		}
		if uid, gid := o.uid.back(c.wantUID), o.gid.back(c.wantGID); uid != c.uid || gid != c.gid {
			t.Errorf("%d:%d comes back as %d:%d", c.wantUID, c.wantGID, uid, gid)
		}
	}
}
