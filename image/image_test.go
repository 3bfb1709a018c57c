package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// files are the contents of an archive by path. A value that starts with "->" is a
// symbolic link.
type files map[string]string

func (f files) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		h := tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(f[name]))}
		target, isLink := strings.CutPrefix(f[name], "->")
		if isLink {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if !isLink {
			if _, err := io.WriteString(w, f[name]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// add puts a blob into a layout and returns its descriptor.
func (f files) add(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	f["blobs/sha256/"+d.Encoded()] = string(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (f files) addJSON(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return f.add(mediaType, raw)
}

func (f files) setIndex(t testing.TB, manifests ...ocispec.Descriptor) {
	t.Helper()
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: manifests})
	if err != nil {
		t.Fatal(err)
	}
	f["index.json"] = string(raw)
	f["oci-layout"] = `{"imageLayoutVersion":"1.0.0"}`
}

// testConfig is a configuration for layers; the platform is the tests' machine.
func testConfig(arch string, layers ...[]byte) ocispec.Image {
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Config: ocispec.ImageConfig{Cmd: []string{"/bin/" + arch}}}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return c
}

// addImage puts an image of gzip layers into a layout.
func (f files) addImage(t testing.TB, arch string, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = f.addJSON(t, ocispec.MediaTypeImageConfig, testConfig(arch, layers...))
	for _, l := range layers {
		m.Layers = append(m.Layers, f.add(ocispec.MediaTypeImageLayerGzip, gz(t, l)))
	}
	return f.addJSON(t, ocispec.MediaTypeImageManifest, m)
}

func named(d ocispec.Descriptor, key, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{key: name}
	return d
}

func newContent(t testing.TB) (image.Content, *content.Store) {
	t.Helper()
	s, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return image.FromStore(s), s
}

func importBytes(t testing.TB, data []byte, opts image.ImportOptions) ([]image.Imported, image.Content, error) {
	t.Helper()
	c, s := newContent(t)
	got, err := image.Import(context.Background(), c, bytes.NewReader(data), opts)
	ingests, lerr := s.ListStatuses(context.Background(), "")
	if lerr != nil || len(ingests) != 0 {
		t.Errorf("ingests left behind: %v, %v", ingests, lerr)
	}
	return got, c, err
}

func names(images []image.Imported) []string {
	var out []string
	for _, i := range images {
		out = append(out, i.Name)
	}
	return out
}

func TestImportLayout(t *testing.T) {
	f := files{}
	d := f.addImage(t, "amd64", files{"a": "1"}.tar(t))
	other := f.addImage(t, "arm64", files{"a": "2"}.tar(t))
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
	both := f.addJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, absent, d}})
	f.setIndex(t,
		named(d, "io.containerd.image.name", "busybox"),
		named(d, ocispec.AnnotationRefName, "example.com/x/y:1"),
		named(d, ocispec.AnnotationRefName, "v2"),
		both)
	for name, data := range map[string][]byte{"plain": f.tar(t), "gzip": gz(t, f.tar(t))} {
		got, c, err := importBytes(t, data, image.ImportOptions{Repository: "repo"})
		if err != nil {
			t.Fatal(name, err)
		}
		want := []string{"docker.io/library/busybox:latest", "example.com/x/y:1", "docker.io/library/repo:v2", ""}
		if !slices.Equal(names(got), want) {
			t.Errorf("%s: names %q, want %q", name, names(got), want)
		}
		config, err := image.ReadConfig(context.Background(), c, got[3].Target, nil)
		if err != nil || config.Architecture != "amd64" {
			t.Errorf("%s: from the index came %q, %v", name, config.Architecture, err)
		}
		var n int
		if err := image.Walk(context.Background(), c, got[3].Target, func(ocispec.Descriptor) error { n++; return nil }); err != nil || n != 7 {
			t.Errorf("%s: walked over %d blobs, want 7; %v", name, n, err)
		}
	}
	if _, _, err := importBytes(t, f.tar(t), image.ImportOptions{Name: "x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("several images under one name: %v", err)
	}
	f.setIndex(t, d)
	if got, _, err := importBytes(t, f.tar(t), image.ImportOptions{Name: "x"}); err != nil || got[0].Name != "docker.io/library/x:latest" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestImportDockerSave(t *testing.T) {
	layer := files{"a": "1"}.tar(t)
	config, err := json.Marshal(testConfig("amd64", layer, layer))
	if err != nil {
		t.Fatal(err)
	}
	f := files{
		"aaa/layer.tar": string(layer), "aaa/VERSION": "1.0", "aaa/json": "{}", "repositories": "{}",
		"bbb/layer.tar": "->../aaa/layer.tar",
		"cfg.json":      string(config),
		"manifest.json": `[{"Config":"cfg.json","RepoTags":["busybox:1","localhost:5000/b"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`,
	}
	got, c, err := importBytes(t, f.tar(t), image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docker.io/library/busybox:1", "localhost:5000/b:latest"}; !slices.Equal(names(got), want) {
		t.Errorf("names %q, want %q", names(got), want)
	}
	m, _, err := image.Manifest(context.Background(), c, got[0].Target, nil)
	if err != nil || len(m.Layers) != 2 || m.Layers[0].MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("manifest %+v, %v", m, err)
	}
	for name, change := range map[string]func(files){
		"layer missing":      func(f files) { delete(f, "aaa/layer.tar") },
		"config missing":     func(f files) { delete(f, "cfg.json") },
		"link loop":          func(f files) { f["bbb/layer.tar"] = "->layer.tar" },
		"layers do not fit":  func(f files) { f["manifest.json"] = `[{"Config":"cfg.json","Layers":["aaa/layer.tar"]}]` },
		"bad name":           func(f files) { f["manifest.json"] = strings.Replace(f["manifest.json"], "busybox:1", "BAD NAME", 1) },
		"no image":           func(f files) { f["manifest.json"] = `[]` },
		"config is no JSON":  func(f files) { f["cfg.json"] = "x" },
		"manifest no JSON":   func(f files) { f["manifest.json"] = "x" },
		"config of no sense": func(f files) { f["cfg.json"] = `{"rootfs":{"diff_ids":["../x","y"]}}` },
	} {
		g := maps.Clone(f)
		change(g)
		if _, _, err := importBytes(t, g.tar(t), image.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImportRefusesBadArchives(t *testing.T) {
	layer := files{"a": "1"}.tar(t)
	good := func() files {
		f := files{}
		f.setIndex(t, f.addImage(t, "amd64", layer))
		return f
	}
	blob := func(f files, prefix string) string {
		for name := range f {
			if strings.HasPrefix(name, "blobs/") && strings.HasPrefix(f[name], prefix) {
				return name
			}
		}
		t.Fatal("no blob")
		return ""
	}
	for name, change := range map[string]func(files){
		"no layout":     func(f files) { delete(f, "oci-layout") },
		"no index":      func(f files) { delete(f, "index.json") },
		"lying blob":    func(f files) { f["blobs/sha256/"+digest.FromString("x").Encoded()] = "y" },
		"bad path":      func(f files) { f["blobs/sha256/../../x"] = "y"; f["blobs/md5/abc"] = "y" },
		"layer missing": func(f files) { delete(f, blob(f, "\x1f\x8b")) },
		"huge index":    func(f files) { f["index.json"] = strings.Repeat(" ", 9<<20) },
		"empty index":   func(f files) { f["index.json"] = `{"manifests":[]}` },
		"ambiguous":     func(f files) { f["index.json"] = strings.Replace(f["index.json"], `{`, `{"layers":[],`, 1) },
		"wrong type":    func(f files) { f["index.json"] = strings.Replace(f["index.json"], `{`, `{"mediaType":"x",`, 1) },
		"target missing": func(f files) {
			f.setIndex(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1})
		},
		"manifest is an index": func(f files) {
			f.setIndex(t, f.addJSON(t, ocispec.MediaTypeImageManifest, map[string]any{"config": map[string]any{"digest": digest.FromString("x"), "size": 1}, "layers": []any{}, "manifests": []any{}}))
		},
		"manifest says index": func(f files) {
			f.setIndex(t, f.addJSON(t, ocispec.MediaTypeImageManifest, map[string]any{"mediaType": ocispec.MediaTypeImageIndex, "config": map[string]any{"digest": digest.FromString("x"), "size": 1}}))
		},
		"size lies": func(f files) {
			d := f.addImage(t, "amd64", layer)
			d.Size++
			f.setIndex(t, d)
		},
		"nested too deep": func(f files) {
			d := f.addImage(t, "amd64", layer)
			for range 12 {
				d = f.addJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{d}})
			}
			f.setIndex(t, d)
		},
		"too many layers": func(f files) {
			d := f.addJSON(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: f.add(ocispec.MediaTypeImageConfig, []byte("{}")), Layers: make([]ocispec.Descriptor, 501)})
			f.setIndex(t, d)
		},
	} {
		f := good()
		change(f)
		if _, _, err := importBytes(t, f.tar(t), image.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := good().tar(t)
	for _, n := range []int{0, 100, 513, len(whole) / 3, len(whole) / 2} {
		if _, _, err := importBytes(t, whole[:n], image.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	packed := gz(t, whole)
	if _, _, err := importBytes(t, packed[:len(packed)-3], image.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("gzip without its end: %v", err)
	}
}

// snapshots does what the daemon does: records in the database, directories in the driver.
type snapshots struct {
	db     *metadata.DB
	driver snapshot.Driver
}

func newSnapshots(t testing.TB) *snapshots {
	t.Helper()
	db, err := metadata.Open(filepath.Join(t.TempDir(), "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Update(context.Background(), func(tx *metadata.Tx) error { return tx.Namespaces().Create("ns", nil) }); err != nil {
		t.Fatal(err)
	}
	driver, err := overlay.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &snapshots{db, driver}
}

func (s *snapshots) of(tx *metadata.Tx) metadata.Snapshots {
	return tx.Snapshots("ns", s.driver.Name())
}

func (s *snapshots) Exists(ctx context.Context, name string) (bool, error) {
	err := s.db.View(ctx, func(tx *metadata.Tx) error { _, err := s.of(tx).Stat(name); return err })
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (s *snapshots) Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error) {
	var parents []uint64
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) { parents, err = s.of(tx).ParentIDs(parent); return err })
	if err != nil {
		return nil, err
	}
	id, release := s.db.ReserveSnapshotID()
	defer release()
	if err := s.driver.Prepare(ctx, id, parents, snapshot.KindActive); err != nil {
		return nil, err
	}
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := s.of(tx).Create(metadata.Snapshot{Key: key, Parent: parent, Kind: snapshot.KindActive, ID: id})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.driver.Remove(context.WithoutCancel(ctx), id))
	}
	return s.driver.Mounts(id, parents, snapshot.KindActive)
}

func (s *snapshots) Commit(ctx context.Context, name, key string) error {
	var v metadata.Snapshot
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) { v, err = s.of(tx).Stat(key); return err })
	if err != nil {
		return err
	}
	usage, err := s.driver.Commit(ctx, v.ID)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error { _, err := s.of(tx).Commit(name, key, usage, nil); return err })
}

func (s *snapshots) Remove(ctx context.Context, key string) error {
	var v metadata.Snapshot
	err := s.db.Update(ctx, func(tx *metadata.Tx) (err error) { v, err = s.of(tx).Remove(key); return err })
	if err != nil {
		return err
	}
	return s.driver.Remove(ctx, v.ID)
}

// count returns the number of snapshot records.
func (s *snapshots) count(t *testing.T) int {
	t.Helper()
	var n int
	err := s.db.View(context.Background(), func(tx *metadata.Tx) error {
		list, err := s.of(tx).List()
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnpack(t *testing.T) {
	ctx := context.Background()
	f := files{}
	f.setIndex(t, f.addImage(t, "amd64",
		files{"usr/bin/tool": "1", "bin": "->usr/bin", "gone": "x", "dir/old": "x"}.tar(t),
		files{"bin/tool2": "2", ".wh.gone": "", "dir/.wh..wh..opq": "", "dir/new": "y"}.tar(t),
		files{"bin/tool3": "3"}.tar(t)))
	got, c, err := importBytes(t, f.tar(t), image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshots(t)
	for range 2 {
		u, err := image.Unpack(ctx, c, s, got[0].Target, image.UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.count(t); n != 3 {
			t.Errorf("%d snapshots, want 3", n)
		}
		if u.Config.Config.Cmd[0] != "/bin/amd64" {
			t.Errorf("configuration %+v", u.Config)
		}
		if diffIDs, err := image.RootFS(ctx, c, got[0].Target, nil); err != nil || image.ChainIDs(diffIDs)[2].String() != u.Snapshot {
			t.Errorf("snapshot %s, %v", u.Snapshot, err)
		}
		ms, err := s.Prepare(ctx, "run", u.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if err := mount.All(ms, root); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"bin/tool": "1", "bin/tool2": "2", "usr/bin/tool3": "3", "dir/new": "y"} {
			if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
				t.Errorf("%s holds %q, %v", name, text, err)
			}
		}
		for _, name := range []string{"gone", "dir/old"} {
			if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := errors.Join(mount.UnmountAll(root, 0), s.Remove(ctx, "run")); err != nil {
			t.Error(err)
		}
	}
}

func TestUnpackRefusesAndLeavesNothing(t *testing.T) {
	ctx := context.Background()
	good, other := files{"a": "1"}.tar(t), files{"b": "2"}.tar(t)
	make1 := func(config ocispec.Image, layers ...[]byte) func(f files) ocispec.Descriptor {
		return func(f files) ocispec.Descriptor {
			m := ocispec.Manifest{Config: f.addJSON(t, ocispec.MediaTypeImageConfig, config)}
			for _, l := range layers {
				m.Layers = append(m.Layers, f.add(ocispec.MediaTypeImageLayerGzip, l))
			}
			return f.addJSON(t, ocispec.MediaTypeImageManifest, m)
		}
	}
	hostile := files{"../evil": "x"}.tar(t)
	for name, tc := range map[string]struct {
		build func(files) ocispec.Descriptor
		class func(error) bool
	}{
		"diff id lies":     {make1(testConfig("amd64", other), gz(t, good)), errdefs.IsInvalidArgument},
		"count differs":    {make1(testConfig("amd64", good, other), gz(t, good)), errdefs.IsInvalidArgument},
		"hostile layer":    {make1(testConfig("amd64", hostile), gz(t, hostile)), errdefs.IsInvalidArgument},
		"damaged layer":    {make1(testConfig("amd64", good), gz(t, good)[:40]), errdefs.IsInvalidArgument},
		"another platform": {make1(testConfig("s390x", good), gz(t, good)), errdefs.IsNotFound},
		"unknown layer": {func(f files) ocispec.Descriptor {
			m := ocispec.Manifest{Config: f.addJSON(t, ocispec.MediaTypeImageConfig, testConfig("amd64", good)), Layers: []ocispec.Descriptor{f.add("application/x-encrypted", good)}}
			return f.addJSON(t, ocispec.MediaTypeImageManifest, m)
		}, errdefs.IsNotImplemented},
	} {
		f := files{}
		f.setIndex(t, tc.build(f))
		got, c, err := importBytes(t, f.tar(t), image.ImportOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := newSnapshots(t)
		if _, err := image.Unpack(ctx, c, s, got[0].Target, image.UnpackOptions{}); !tc.class(err) {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.count(t); n != 0 {
			t.Errorf("%s: %d snapshots left behind", name, n)
		}
	}
}

func TestNormalizeName(t *testing.T) {
	for name, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:1": "docker.io/a/b:1", "x.io/a": "x.io/a:latest",
		"": "", "UPPER": "", "a b": "", "../x": "",
	} {
		got, err := image.NormalizeName(name)
		if got != want || want == "" && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func FuzzImport(f *testing.F) {
	layout := files{}
	layout.setIndex(f, layout.addImage(f, "amd64", files{"a": "1"}.tar(f)))
	f.Add(layout.tar(f))
	f.Add(files{"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": `{}`, "l": "->c"}.tar(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _ := newContent(t)
		got, err := image.Import(context.Background(), c, bytes.NewReader(data), image.ImportOptions{})
		if err == nil && len(got) == 0 {
			t.Error("no image and no error")
		}
	})
}

func ExampleNormalizeName() {
	name, err := image.NormalizeName("busybox")
	fmt.Println(name, err)
	// Output: docker.io/library/busybox:latest <nil>
}
