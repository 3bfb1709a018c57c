package goclient

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/transfer/archive"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

const (
	fullName = "io.containerd.image.name"
	refName  = ocispec.AnnotationRefName
)

// namedArchives are archives with different names for their images: annotations of each image, or the tags of docker
// save.
func namedArchives() map[string]any {
	type a = map[string]string
	return map[string]any{
		"a full name":              []a{{fullName: "example.com/box:1"}},
		"a full name and its tag":  []a{{fullName: "example.com/box:1", refName: "1"}},
		"a full name, another tag": []a{{fullName: "example.com/box:1", refName: "2"}},
		"a short name":             []a{{fullName: "named:1"}},
		"a name without a tag":     []a{{fullName: "example.com/box"}},
		"a word":                   []a{{fullName: "box"}},
		"a tag":                    []a{{refName: "1.0"}},
		"a tag of letters":         []a{{refName: "latest"}},
		"an odd tag":               []a{{refName: "1.0_RC-1"}},
		"a ref in full":            []a{{refName: "example.com/box:2"}},
		"a short ref":              []a{{refName: "named:1"}},
		"a ref with a path":        []a{{refName: "team/box"}},
		"a ref by digest":          []a{{refName: "example.com/box@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
		"a name by digest":         []a{{fullName: "example.com/box@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}},
		"a word and a tag":         []a{{fullName: "box", refName: "1"}},
		"an odd name":              []a{{fullName: "example.com/Weird Name"}},
		"an odd ref":               []a{{refName: "example.com/UPPER:1"}},
		"a ref of the prefix":      []a{{refName: "example.com/boxes:1"}},
		"a ref below the prefix":   []a{{refName: "example.com/box/sub:1"}},
		"the prefix":               []a{{refName: "example.com/box"}},
		"no name":                  []a{nil},
		"two tags":                 []a{{refName: "1"}, {refName: "2"}},
		"two names":                []a{{fullName: "example.com/box:1"}, {fullName: "example.com/other:1"}},
		"one of two named":         []a{{fullName: "example.com/box:1"}, nil},
		"no name of two":           []a{nil, nil},
		"saved":                    []string{"box:1"},
		"saved in full":            []string{"example.com/box:1"},
		"saved with two":           []string{"example.com/box:1", "example.com/box:2"},
		"saved without":            []string{},
	}
}

// namingStores are the ways to store the contents of an archive.
func namingStores() map[string]*image.Store {
	return map[string]*image.Store{
		"nothing":                        image.NewStore(""),
		"an index name":                  image.NewStore("example.com/index:1"),
		"a short index name":             image.NewStore("index"),
		"a prefix":                       image.NewStore("", image.WithNamedPrefix("example.com/box", false)),
		"a prefix, overwrite":            image.NewStore("", image.WithNamedPrefix("import-2026-01-01", true)),
		"a prefix and an index":          image.NewStore("example.com/index:1", image.WithNamedPrefix("example.com/box", false)),
		"digests":                        image.NewStore("", image.WithDigestRef("import", false, false)),
		"digests, overwrite":             image.NewStore("", image.WithDigestRef("import", true, false)),
		"digests if not named":           image.NewStore("", image.WithDigestRef("import", false, true)),
		"digests if not named, over":     image.NewStore("", image.WithDigestRef("import", true, true)),
		"a prefix and digests":           image.NewStore("", image.WithNamedPrefix("import", true), image.WithDigestRef("import", true, false)),
		"a prefix and digests, no named": image.NewStore("", image.WithNamedPrefix("import", true), image.WithDigestRef("import", true, true)),
		"digests of another prefix":      image.NewStore("", image.WithNamedPrefix("example.com/box", false), image.WithDigestRef("import", false, true)),
		"two prefixes":                   image.NewStore("", image.WithNamedPrefix("example.com/box", false), image.WithNamedPrefix("import", true)),
		"another reference":              image.NewStore("", image.WithExtraReference("example.com/extra:1")),
		"all":                            image.NewStore("example.com/index:1", image.WithNamedPrefix("example.com/box", false), image.WithDigestRef("example.com/box", false, false), image.WithExtraReference("example.com/extra:1")),
	}
}

// nameArchive writes an archive with one image for each name, and returns a description of each digest.
func nameArchive(t *testing.T, names any) ([]byte, map[digest.Digest]string) {
	t.Helper()
	files := make(map[string][]byte)
	known := make(map[digest.Digest]string)
	put := func(mediaType, what string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		files["blobs/sha256/"+d.Encoded()] = data
		known[d] = what
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	encode := func(v any) []byte {
		raw, err := json.Marshal(v)
		harness.Must(t, err)
		return raw
	}
	makeImage := func(i int) (ocispec.Descriptor, ocispec.Manifest) {
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		harness.Must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", i), Typeflag: tar.TypeReg, Mode: 0o644}))
		harness.Must(t, w.Close())
		config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
		config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer.Bytes())}}
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
		m.Config = put(ocispec.MediaTypeImageConfig, "config", encode(config))
		m.Layers = []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, "layer", layer.Bytes())}
		return put(m.MediaType, fmt.Sprintf("image %d", i+1), encode(m)), m
	}
	switch names := names.(type) {
	case []map[string]string:
		index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		for i, annotations := range names {
			d, _ := makeImage(i)
			d.Annotations = annotations
			index.Manifests = append(index.Manifests, d)
		}
		files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
		files["index.json"] = encode(index)
		known[digest.FromBytes(files["index.json"])] = "index.json"
	case []string:
		_, m := makeImage(0)
		clear(known) // the importing daemon creates its documents
		config := m.Config.Digest.Encoded() + ".json"
		files[config], files["layer.tar"] = files["blobs/sha256/"+m.Config.Digest.Encoded()], files["blobs/sha256/"+m.Layers[0].Digest.Encoded()]
		for name := range files {
			if strings.HasPrefix(name, "blobs/") {
				delete(files, name)
			}
		}
		files["manifest.json"] = encode([]map[string]any{{"Config": config, "RepoTags": names, "Layers": []string{"layer.tar"}}})
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	sorted := make([]string, 0, len(files))
	for name := range files {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	for _, name := range sorted {
		harness.Must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name]))}))
		_, err := w.Write(files[name])
		harness.Must(t, err)
	}
	harness.Must(t, w.Close())
	return out.Bytes(), known
}

// namingTable imports each archive into each store by the transfer service, and returns the resulting names, one line
// each.
func namingTable(ctx context.Context, t *testing.T, c *containerd.Client) []string {
	t.Helper()
	var table []string
	n := 0
	for what, names := range namedArchives() {
		raw, known := nameArchive(t, names)
		for how, store := range namingStores() {
			n++
			in := namespaces.WithNamespace(ctx, fmt.Sprintf("names-%d", n))
			line := "transfer: " + what + " into " + how + ":"
			err := c.Transfer(in, archive.NewImageImportStream(bytes.NewReader(raw), ""), store)
			if err != nil {
				table = append(table, line+" fails")
				continue
			}
			table = append(table, line+namesIn(in, t, c, known))
		}
	}
	table = append(table, movedTable(ctx, t, c)...)
	sort.Strings(table)
	return table
}

// movedTable pulls an image into each store, and tags one as each.
func movedTable(ctx context.Context, t *testing.T, c *containerd.Client) (table []string) {
	t.Helper()
	host := harness.StartRegistry(t, harness.RegistryOptions{}).Host
	raw, known := nameArchive(t, []map[string]string{{fullName: "example.com/box:1"}})
	remote, err := registry.NewOCIRegistry(ctx, host+"/team/box:1", registry.WithDefaultScheme("http"))
	harness.Must(t, err)
	seed := namespaces.WithNamespace(ctx, "names-seed")
	harness.Must(t, c.Transfer(seed, archive.NewImageImportStream(bytes.NewReader(raw), ""), image.NewStore("", image.WithNamedPrefix("import", true))))
	harness.Must(t, c.Transfer(seed, image.NewStore("example.com/box:1"), remote))
	n := 0
	for how, store := range namingStores() {
		n++
		in := namespaces.WithNamespace(ctx, fmt.Sprintf("names-pull-%d", n))
		line := "pull into " + how + ":"
		if err := c.Transfer(in, remote, store); err != nil {
			line += " fails"
		}
		table = append(table, line+namesIn(in, t, c, known))
		in = namespaces.WithNamespace(ctx, fmt.Sprintf("names-tag-%d", n))
		harness.Must(t, c.Transfer(in, archive.NewImageImportStream(bytes.NewReader(raw), ""), image.NewStore("", image.WithNamedPrefix("import", true))))
		line = "tag into " + how + ":"
		if err := c.Transfer(in, image.NewStore("example.com/box:1"), store); err != nil {
			line += " fails"
		}
		table = append(table, line+namesIn(in, t, c, known))
	}
	return table
}

// namesIn returns the names of a namespace with the target of each.
func namesIn(ctx context.Context, t *testing.T, c *containerd.Client, known map[digest.Digest]string) string {
	t.Helper()
	list, err := c.ImageService().List(ctx)
	harness.Must(t, err)
	var names []string
	for _, img := range list {
		is := known[img.Target.Digest]
		if is == "" {
			is = "made manifest" // of Docker's type or of OCI's
			if images.IsIndexType(img.Target.MediaType) {
				is = "made index"
			}
		}
		names = append(names, fmt.Sprintf(" [%s = %s]", strings.ReplaceAll(img.Name, img.Target.Digest.String(), "DIGEST"), is))
	}
	slices.Sort(names)
	return strings.Join(names, "")
}

// TestImport_Names compares the names of imported images with those of containerd 2.4.2.
func TestImport_Names(t *testing.T) {
	f := start(t)
	want, err := os.ReadFile(filepath.Join("testdata", "names.txt"))
	f.must(err)
	got := namingTable(f.ctx, t, f.client)
	lines := strings.Split(strings.TrimSpace(string(want)), "\n")
	if len(lines) != len(got) {
		t.Errorf("%d combinations, recorded are %d", len(got), len(lines))
	}
	for i := range min(len(lines), len(got)) {
		if got[i] != lines[i] {
			t.Errorf("%s\ncontainerd 2.4.2: %s", got[i], lines[i])
		}
	}
}
