package layout_test

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
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
)

func TestImportLayout(t *testing.T) {
	f := imagetest.Files{}
	d := f.AddImage(t, "amd64", imagetest.Files{"a": "1"}.Tar(t))
	other := f.AddImage(t, "arm64", imagetest.Files{"a": "2"}.Tar(t))
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
	both := f.AddJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, absent, d}})
	f.SetIndex(t,
		imagetest.Named(d, "io.containerd.image.name", "busybox"),
		imagetest.Named(d, ocispec.AnnotationRefName, "example.com/x/y:1"),
		imagetest.Named(d, ocispec.AnnotationRefName, "v2"),
		both)
	for name, data := range map[string][]byte{"plain": f.Tar(t), "gzip": imagetest.GZ(t, f.Tar(t))} {
		got, c, err := imagetest.ImportBytes(t, data, layout.ImportOptions{Repository: "repo"})
		if err != nil {
			t.Fatal(name, err)
		}
		want := []string{"docker.io/library/busybox:latest", "example.com/x/y:1", "docker.io/library/repo:v2", ""}
		if !slices.Equal(imagetest.Names(got), want) {
			t.Errorf("%s: names %q, want %q", name, imagetest.Names(got), want)
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
	if _, _, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{Name: "x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("several images under one name: %v", err)
	}
	f.SetIndex(t, d)
	if got, _, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{Name: "x"}); err != nil || got[0].Name != "docker.io/library/x:latest" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestImportDockerSave(t *testing.T) {
	layer := imagetest.Files{"a": "1"}.Tar(t)
	config, err := json.Marshal(imagetest.Config("amd64", layer, layer))
	if err != nil {
		t.Fatal(err)
	}
	f := imagetest.Files{
		"aaa/layer.tar": string(layer), "aaa/VERSION": "1.0", "aaa/json": "{}", "repositories": "{}",
		"bbb/layer.tar": "->../aaa/layer.tar",
		"cfg.json":      string(config),
		"manifest.json": `[{"Config":"cfg.json","RepoTags":["busybox:1","localhost:5000/b"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`,
	}
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docker.io/library/busybox:1", "localhost:5000/b:latest"}; !slices.Equal(imagetest.Names(got), want) {
		t.Errorf("names %q, want %q", imagetest.Names(got), want)
	}
	m, _, err := image.Manifest(context.Background(), c, got[0].Target, nil)
	if err != nil || len(m.Layers) != 2 || m.Layers[0].MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("manifest %+v, %v", m, err)
	}
	for name, change := range map[string]func(imagetest.Files){
		"layer missing":     func(f imagetest.Files) { delete(f, "aaa/layer.tar") },
		"config missing":    func(f imagetest.Files) { delete(f, "cfg.json") },
		"link loop":         func(f imagetest.Files) { f["bbb/layer.tar"] = "->layer.tar" },
		"layers do not fit": func(f imagetest.Files) { f["manifest.json"] = `[{"Config":"cfg.json","Layers":["aaa/layer.tar"]}]` },
		"bad name": func(f imagetest.Files) {
			f["manifest.json"] = strings.Replace(f["manifest.json"], "busybox:1", "BAD NAME", 1)
		},
		"no image":          func(f imagetest.Files) { f["manifest.json"] = `[]` },
		"config not JSON":   func(f imagetest.Files) { f["cfg.json"] = "x" },
		"manifest not JSON": func(f imagetest.Files) { f["manifest.json"] = "x" },
		"config invalid":    func(f imagetest.Files) { f["cfg.json"] = `{"rootfs":{"diff_ids":["../x","y"]}}` },
	} {
		g := maps.Clone(f)
		change(g)
		if _, _, err := imagetest.ImportBytes(t, g.Tar(t), layout.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImport_RefusesBadArchives(t *testing.T) {
	layer := imagetest.Files{"a": "1"}.Tar(t)
	good := func() imagetest.Files {
		f := imagetest.Files{}
		f.SetIndex(t, f.AddImage(t, "amd64", layer))
		return f
	}
	blob := func(f imagetest.Files, prefix string) string {
		for name := range f {
			if strings.HasPrefix(name, "blobs/") && strings.HasPrefix(f[name], prefix) {
				return name
			}
		}
		t.Fatal("no blob")
		return ""
	}
	for name, change := range map[string]func(imagetest.Files){
		"no layout":     func(f imagetest.Files) { delete(f, "oci-layout") },
		"no index":      func(f imagetest.Files) { delete(f, "index.json") },
		"lying blob":    func(f imagetest.Files) { f["blobs/sha256/"+digest.FromString("x").Encoded()] = "y" },
		"bad path":      func(f imagetest.Files) { f["blobs/sha256/../../x"] = "y"; f["blobs/md5/abc"] = "y" },
		"layer missing": func(f imagetest.Files) { delete(f, blob(f, "\x1f\x8b")) },
		"huge index":    func(f imagetest.Files) { f["index.json"] = strings.Repeat(" ", 9<<20) },
		"empty index":   func(f imagetest.Files) { f["index.json"] = `{"manifests":[]}` },
		"ambiguous":     func(f imagetest.Files) { f["index.json"] = strings.Replace(f["index.json"], `{`, `{"layers":[],`, 1) },
		"wrong type": func(f imagetest.Files) {
			f["index.json"] = strings.Replace(f["index.json"], `{`, `{"mediaType":"x",`, 1)
		},
		"target missing": func(f imagetest.Files) {
			f.SetIndex(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1})
		},
		"manifest is an index": func(f imagetest.Files) {
			f.SetIndex(t, f.AddJSON(t, ocispec.MediaTypeImageManifest, map[string]any{"config": map[string]any{"digest": digest.FromString("x"), "size": 1}, "layers": []any{}, "manifests": []any{}}))
		},
		"manifest says index": func(f imagetest.Files) {
			f.SetIndex(t, f.AddJSON(t, ocispec.MediaTypeImageManifest, map[string]any{"mediaType": ocispec.MediaTypeImageIndex, "config": map[string]any{"digest": digest.FromString("x"), "size": 1}}))
		},
		"size lies": func(f imagetest.Files) {
			d := f.AddImage(t, "amd64", layer)
			d.Size++
			f.SetIndex(t, d)
		},
		"nested too deep": func(f imagetest.Files) {
			d := f.AddImage(t, "amd64", layer)
			for range 12 {
				d = f.AddJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{d}})
			}
			f.SetIndex(t, d)
		},
		"too many layers": func(f imagetest.Files) {
			d := f.AddJSON(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: f.Add(ocispec.MediaTypeImageConfig, []byte("{}")), Layers: make([]ocispec.Descriptor, 501)})
			f.SetIndex(t, d)
		},
	} {
		f := good()
		change(f)
		if _, _, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := good().Tar(t)
	for _, n := range []int{0, 100, 513, len(whole) / 3, len(whole) / 2} {
		if _, _, err := imagetest.ImportBytes(t, whole[:n], layout.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	packed := imagetest.GZ(t, whole)
	if _, _, err := imagetest.ImportBytes(t, packed[:len(packed)-3], layout.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("gzip without its end: %v", err)
	}
}

func FuzzImport(f *testing.F) {
	files := imagetest.Files{}
	files.SetIndex(f, files.AddImage(f, "amd64", imagetest.Files{"a": "1"}.Tar(f)))
	f.Add(files.Tar(f))
	f.Add(imagetest.Files{"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": `{}`, "l": "->c"}.Tar(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _ := imagetest.NewContent(t)
		got, err := layout.Import(context.Background(), c, bytes.NewReader(data), layout.ImportOptions{})
		if err == nil && len(got) == 0 {
			t.Error("no image and no error")
		}
	})
}
