package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layout is an OCI layout with one image for linux/amd64.
type Layout struct {
	// MediaType is that of all layers.
	MediaType string
	// Stored are the layers as the layout has them, Layers the same ones without compression.
	Stored, Layers [][]byte
	Config         ocispec.ImageConfig
	// Name is the image's name in the index; it may be empty.
	Name string
	// Alter changes the blobs after their digests were computed, to make a damaged layout; it may be nil.
	Alter func(blobs map[digest.Digest][]byte)
}

// Write writes the layout as a tar archive and returns its path.
func (l Layout) Write(t *testing.T) string {
	t.Helper()
	blobs := make(map[digest.Digest][]byte)
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		blobs[d] = data
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		Must(t, err)
		return data
	}
	img := ocispec.Image{Config: l.Config, RootFS: ocispec.RootFS{Type: "layers"}}
	img.OS, img.Architecture = "linux", "amd64"
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, layer := range l.Layers {
		manifest.Layers = append(manifest.Layers, put(l.MediaType, l.Stored[i]))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(layer))
	}
	manifest.Config = put(ocispec.MediaTypeImageConfig, encode(img))
	described := put(ocispec.MediaTypeImageManifest, encode(manifest))
	if l.Name != "" {
		described.Annotations = map[string]string{"io.containerd.image.name": l.Name}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{described}}
	if l.Alter != nil {
		l.Alter(blobs)
	}
	files := []File{
		{Name: "oci-layout", Mode: 0o644, Body: `{"imageLayoutVersion":"1.0.0"}`},
		{Name: "index.json", Mode: 0o644, Body: string(encode(index))},
	}
	for d, data := range blobs {
		files = append(files, File{Name: "blobs/" + d.Algorithm().String() + "/" + d.Encoded(), Mode: 0o644, Body: string(data)})
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	Must(t, os.WriteFile(path, TarOf(t, files), 0o600))
	return path
}

// OCIArchive writes a layout with plain layers as a tar archive and returns its path. alter may be nil: see Layout.
func OCIArchive(t *testing.T, layers [][]byte, cfg ocispec.ImageConfig, alter func(blobs map[digest.Digest][]byte)) string {
	t.Helper()
	return CodedArchive(t, ocispec.MediaTypeImageLayer, layers, layers, cfg, alter)
}

// CodedArchive is OCIArchive with layers that are stored with a compression.
func CodedArchive(
	t *testing.T, mediaType string, stored, layers [][]byte, cfg ocispec.ImageConfig, alter func(blobs map[digest.Digest][]byte),
) string {
	t.Helper()
	return Layout{MediaType: mediaType, Stored: stored, Layers: layers, Config: cfg, Alter: alter}.Write(t)
}
