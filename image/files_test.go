package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
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
