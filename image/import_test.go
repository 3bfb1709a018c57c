package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
)

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
		"layer missing":     func(f files) { delete(f, "aaa/layer.tar") },
		"config missing":    func(f files) { delete(f, "cfg.json") },
		"link loop":         func(f files) { f["bbb/layer.tar"] = "->layer.tar" },
		"layers do not fit": func(f files) { f["manifest.json"] = `[{"Config":"cfg.json","Layers":["aaa/layer.tar"]}]` },
		"bad name":          func(f files) { f["manifest.json"] = strings.Replace(f["manifest.json"], "busybox:1", "BAD NAME", 1) },
		"no image":          func(f files) { f["manifest.json"] = `[]` },
		"config not JSON":   func(f files) { f["cfg.json"] = "x" },
		"manifest not JSON": func(f files) { f["manifest.json"] = "x" },
		"config invalid":    func(f files) { f["cfg.json"] = `{"rootfs":{"diff_ids":["../x","y"]}}` },
	} {
		g := maps.Clone(f)
		change(g)
		if _, _, err := importBytes(t, g.tar(t), image.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImport_RefusesBadArchives(t *testing.T) {
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
