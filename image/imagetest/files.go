// Package imagetest builds images and archives for the tests of image and the packages below it.
package imagetest

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
	"github.com/cleatproject/cleat/image/layout"
)

// Files are the contents of an archive by path. A value that starts with "->" is a
// symbolic link.
type Files map[string]string

// Tar returns the files as a tar archive, in the order of their paths.
func (f Files) Tar(t testing.TB) []byte {
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

// GZ returns data compressed with gzip.
func GZ(t testing.TB, data []byte) []byte {
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

// Add puts a blob into a layout and returns its descriptor.
func (f Files) Add(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	f["blobs/sha256/"+d.Encoded()] = string(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// AddJSON puts a document into a layout and returns its descriptor.
func (f Files) AddJSON(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return f.Add(mediaType, raw)
}

// SetIndex makes the files an OCI image layout of these manifests.
func (f Files) SetIndex(t testing.TB, manifests ...ocispec.Descriptor) {
	t.Helper()
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: manifests})
	if err != nil {
		t.Fatal(err)
	}
	f["index.json"] = string(raw)
	f["oci-layout"] = `{"imageLayoutVersion":"1.0.0"}`
}

// Config returns a configuration for layers; the platform is the tests' machine.
func Config(arch string, layers ...[]byte) ocispec.Image {
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Config: ocispec.ImageConfig{Cmd: []string{"/bin/" + arch}}}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return c
}

// AddImage puts an image of gzip layers into a layout.
func (f Files) AddImage(t testing.TB, arch string, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = f.AddJSON(t, ocispec.MediaTypeImageConfig, Config(arch, layers...))
	for _, l := range layers {
		m.Layers = append(m.Layers, f.Add(ocispec.MediaTypeImageLayerGzip, GZ(t, l)))
	}
	return f.AddJSON(t, ocispec.MediaTypeImageManifest, m)
}

// Named returns a descriptor with a name as its one annotation.
func Named(d ocispec.Descriptor, key, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{key: name}
	return d
}

// NewContent returns an empty content store.
func NewContent(t testing.TB) (image.Content, *content.Store) {
	t.Helper()
	s, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return FromStore(s), s
}

// ImportBytes imports an archive into a content store of its own, and checks that no ingest is left.
func ImportBytes(t testing.TB, data []byte, opts layout.ImportOptions) ([]layout.Imported, image.Content, error) {
	t.Helper()
	c, s := NewContent(t)
	got, err := layout.Import(context.Background(), c, bytes.NewReader(data), opts)
	ingests, lerr := s.ListStatuses(context.Background(), "")
	if lerr != nil || len(ingests) != 0 {
		t.Errorf("ingests left behind: %v, %v", ingests, lerr)
	}
	return got, c, err
}

// Names returns the names of images.
func Names(images []layout.Imported) []string {
	var out []string
	for _, i := range images {
		out = append(out, i.Name)
	}
	return out
}
