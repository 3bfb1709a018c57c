package metadata

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/events"
)

// clock advances by a second whenever it is read.
func clock() func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.Unix(1_700_000_000+n.Add(1), 5).UTC() }
}

func openTest(t *testing.T) *DB {
	t.Helper()
	db, err := OpenWith(filepath.Join(t.TempDir(), "meta.db"), Options{Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	update(t, db, func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) })
	return db
}

func update(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// refused checks that an update fails with a class.
func refused(t *testing.T, db *DB, class func(error) bool, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); !class(err) {
		t.Errorf("got %v", err)
	}
}

func target(s string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(s), Size: 7}
}

func TestContainerRoundTrip(t *testing.T) {
	db := openTest(t)
	want := Container{
		ID: "c1", Labels: map[string]string{"a.b/c": "1"}, Image: "img",
		Runtime: Runtime{"io.containerd.cleat.v2", &Any{"opts", []byte{1, 0, 2}}},
		Spec:    &Any{"spec", []byte("{}")}, Snapshotter: "overlayfs", SnapshotKey: "k",
		Extensions: map[string]Any{"x": {"t", []byte("v")}, "y": {}}, SandboxID: "s",
	}
	update(t, db, func(tx *Tx) (err error) { want, err = tx.Containers("ns").Create(want); return err })
	view(t, db, func(tx *Tx) error {
		got, err := tx.Containers("ns").Get("c1")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return err
	})
	refused(t, db, errdefs.IsAlreadyExists, func(tx *Tx) error { _, err := tx.Containers("ns").Create(want); return err })
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { _, err := tx.Containers("other").Get("c1"); return err })
	update(t, db, func(tx *Tx) error { _, err := tx.Containers("other").Create(want); return err })
	view(t, db, func(tx *Tx) error {
		if _, err := tx.Namespaces().Get("other"); err != nil {
			t.Errorf("the namespace did not come with its first record: %v", err)
		}
		_, err := tx.Containers("other").Get("c1")
		return err
	})
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error { _, err := tx.Containers("not/one").Create(want); return err })
	update(t, db, func(tx *Tx) error { return tx.Containers("ns").Delete("c1") })
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { return tx.Containers("ns").Delete("c1") })
}

func TestContainerUpdate(t *testing.T) {
	db := openTest(t)
	update(t, db, func(tx *Tx) error {
		_, err := tx.Containers("ns").Create(Container{ID: "c", Runtime: Runtime{Name: "r"}, Image: "old", Labels: map[string]string{"a": "1", "b.c": "2"}})
		return err
	})
	update(t, db, func(tx *Tx) error {
		v, err := tx.Containers("ns").Update(Container{ID: "c", Image: "new", Labels: map[string]string{"b.c": "3"}}, "labels.b.c", "labels.a")
		if want := map[string]string{"b.c": "3"}; !reflect.DeepEqual(v.Labels, want) || v.Image != "old" {
			t.Errorf("got %+v", v)
		}
		if !v.UpdatedAt.After(v.CreatedAt) {
			t.Error("the time of the update is not later")
		}
		return err
	})
	update(t, db, func(tx *Tx) error {
		v, err := tx.Containers("ns").Update(Container{ID: "c", Image: "new", Extensions: map[string]Any{"e": {}}})
		if v.Image != "new" || len(v.Labels) != 0 || len(v.Extensions) != 1 || v.Runtime.Name != "r" {
			t.Errorf("got %+v", v)
		}
		return err
	})
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error {
		_, err := tx.Containers("ns").Update(Container{ID: "c", Runtime: Runtime{Name: "other"}})
		return err
	})
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error {
		_, err := tx.Containers("ns").Update(Container{ID: "c"}, "runtime.name")
		return err
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { _, err := tx.Containers("ns").Update(Container{ID: "x"}); return err })
}

func TestImages(t *testing.T) {
	db := openTest(t)
	img := Image{Name: "docker.io/library/busybox:latest", Labels: map[string]string{"l": "1"}, Target: target("m")}
	img.Target.Annotations = map[string]string{"n": "x"}
	img.Target.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", OSFeatures: []string{"f"}}
	update(t, db, func(tx *Tx) (err error) { img, err = tx.Images("ns").Create(img); return err })
	view(t, db, func(tx *Tx) error {
		list, err := tx.Images("ns").List("name==nothing", "target.digest=="+img.Target.Digest.String())
		if len(list) != 1 || !reflect.DeepEqual(list[0], img) {
			t.Errorf("got %+v, want %+v", list, img)
		}
		return err
	})
	update(t, db, func(tx *Tx) error {
		v, err := tx.Images("ns").Update(Image{Name: img.Name, Target: target("m2")}, "target")
		if v.Target.Digest != digest.FromString("m2") || v.Labels["l"] != "1" {
			t.Errorf("got %+v", v)
		}
		return err
	})
	for _, bad := range []Image{
		{Name: "", Target: target("m")},
		{Name: "a\x00b", Target: target("m")},
		{Name: "a\xffb", Target: target("m")},
		{Name: "n", Target: target("m"), Labels: map[string]string{"k": "\xff"}},
		{Name: "n", Target: target("m"), Labels: map[string]string{"\xff": "v"}},
		{Name: "n", Target: ocispec.Descriptor{MediaType: "x", Size: 1, Digest: "sha256:short"}},
		{Name: "n", Target: ocispec.Descriptor{MediaType: "x", Digest: digest.FromString("m")}},
		{Name: "n", Target: target("m"), Labels: map[string]string{"k": strings.Repeat("v", 4096)}},
	} {
		refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error { _, err := tx.Images("ns").Create(bad); return err })
	}
}

func TestNamespaces(t *testing.T) {
	db := openTest(t)
	refused(t, db, errdefs.IsAlreadyExists, func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) })
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error { return tx.Namespaces().Create("../x", nil) })
	update(t, db, func(tx *Tx) error {
		if err := tx.Namespaces().Create("two", map[string]string{"a": "1"}); err != nil {
			return err
		}
		return tx.Namespaces().SetLabels("two", map[string]string{"b": "2"})
	})
	view(t, db, func(tx *Tx) error {
		list, err := tx.Namespaces().List("labels.b==2")
		if len(list) != 1 || list[0].Name != "two" || len(list[0].Labels) != 1 {
			t.Errorf("got %+v", list)
		}
		return err
	})
	update(t, db, func(tx *Tx) error {
		_, err := tx.Images("two").Create(Image{Name: "i", Target: target("x")})
		return err
	})
	err := db.Update(context.Background(), func(tx *Tx) error { return tx.Namespaces().Delete("two") })
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "1 images") {
		t.Errorf("the error does not say what is left: %v", err)
	}
	update(t, db, func(tx *Tx) error { return errors.Join(tx.Images("two").Delete("i"), tx.Namespaces().Delete("two")) })
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { return tx.Namespaces().Delete("two") })
}

func TestLeases(t *testing.T) {
	db := openTest(t)
	update(t, db, func(tx *Tx) error {
		l := tx.Leases("ns")
		for _, v := range []Lease{
			{ID: "a"},
			{ID: "a!"},
			{ID: "old", Labels: map[string]string{LabelExpire: "2001-02-03T04:05:06Z"}},
			{ID: "new", Labels: map[string]string{LabelExpire: "2101-02-03T04:05:06Z"}},
		} {
			if _, err := l.Create(v); err != nil {
				return err
			}
		}
		return errors.Join(
			l.AddResource("a", Resource{"sha256:x", "content"}), l.AddResource("a", Resource{"sha256:x", "content"}),
			l.AddResource("a", Resource{"key", "snapshots/overlayfs"}), l.AddResource("a!", Resource{"o", "content"}),
			l.DeleteResource("a", Resource{"not held", "content"}))
	})
	view(t, db, func(tx *Tx) error {
		got, err := tx.Leases("ns").Resources("a")
		if want := []Resource{{"sha256:x", "content"}, {"key", "snapshots/overlayfs"}}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		expired, err2 := tx.Leases("ns").Expired(time.Unix(1_700_000_000, 0))
		if len(expired) != 1 || expired[0].ID != "old" {
			t.Errorf("expired: %v", expired)
		}
		return errors.Join(err, err2)
	})
	update(t, db, func(tx *Tx) error { return tx.Leases("ns").Delete("a") })
	view(t, db, func(tx *Tx) error {
		got, err := tx.Leases("ns").Resources("a!")
		if len(got) != 1 {
			t.Errorf("deleting a lease took another's resources: %v", got)
		}
		return err
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { return tx.Leases("ns").AddResource("a", Resource{"x", "content"}) })
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error {
		_, err := tx.Leases("ns").Create(Lease{ID: "b", Labels: map[string]string{LabelExpire: "soon"}})
		return err
	})
}

func TestContent(t *testing.T) {
	db := openTest(t)
	d := digest.FromString("blob")
	update(t, db, func(tx *Tx) error {
		_, err := tx.Content("ns").Create(Blob{Digest: d, Size: 4, Labels: map[string]string{"a": "b"}})
		return errors.Join(err, tx.Namespaces().Create("two", nil))
	})
	view(t, db, func(tx *Tx) error {
		users, err := tx.BlobUsers(d)
		if !slices.Equal(users, []string{"ns"}) {
			t.Errorf("users %v", users)
		}
		if _, err := tx.Content("two").Get(d); !errdefs.IsNotFound(err) {
			t.Errorf("another namespace sees the blob: %v", err)
		}
		return err
	})
	update(t, db, func(tx *Tx) error {
		v, err := tx.Content("ns").Update(Blob{Digest: d, Labels: map[string]string{"c": "d"}}, "labels.c")
		if len(v.Labels) != 2 {
			t.Errorf("labels %v", v.Labels)
		}
		return errors.Join(err, tx.Content("ns").Delete(d))
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { return tx.Content("ns").Delete(d) })
}

func TestUpdate_KeepsUnknownFields(t *testing.T) {
	db := openTest(t)
	raw := encodeContainer(&Container{ID: "c", Runtime: Runtime{Name: "r"}})
	extra := protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "from the future")
	var v Container
	if err := decodeContainer(append(raw, extra...), &v); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error { c := tx.Containers("ns"); return c.table.put("c", &v) })
	update(t, db, func(tx *Tx) error {
		_, err := tx.Containers("ns").Update(Container{ID: "c", Image: "i"}, "image")
		return err
	})
	view(t, db, func(tx *Tx) error {
		got, err := tx.Containers("ns").Get("c")
		if string(got.unknown) != string(extra) || got.Image != "i" {
			t.Errorf("got %+v", got)
		}
		return err
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(encodeContainer(&Container{ID: "c", Labels: map[string]string{"a": "b"}, Spec: &Any{"t", []byte("v")}, Extensions: map[string]Any{"e": {}}}))
	f.Add(encodeImage(&Image{Name: "i", Target: target("x")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c Container
		if err := decodeContainer(raw, &c); err == nil {
			var again Container
			if err := decodeContainer(encodeContainer(&c), &again); err != nil {
				t.Errorf("what was written cannot be read: %v", err)
			}
		}
		_ = decodeImage(raw, &Image{})
		_ = decodeSnapshot(raw, &Snapshot{})
		_ = decodeBlob(raw, &Blob{})
		_ = decodeLease(raw, &Lease{})
		_ = decodeNamespace(raw, &Namespace{})
		_ = decodeSandbox(raw, &Sandbox{})
		_ = decodeEvent(raw, &events.Event{})
	})
}
