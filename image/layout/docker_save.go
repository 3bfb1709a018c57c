package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
)

// savedImage is an entry of docker save's manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// fromDockerSave makes an OCI manifest for each image and returns the images by tag.
func (im *importer) fromDockerSave(ctx context.Context) ([]Imported, error) {
	var saved []savedImage
	if err := json.Unmarshal(im.manifest, &saved); err != nil {
		return nil, invalidf("manifest.json: %w", err)
	}
	var images []Imported
	for _, s := range saved {
		target, err := im.makeManifest(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: %w", err)
		}
		if len(s.RepoTags) == 0 {
			images = append(images, Imported{Target: target})
		}
		for _, tag := range s.RepoTags {
			name, err := image.NormalizeName(tag)
			if err != nil {
				return nil, err
			}
			images = append(images, Imported{Name: name, Stated: name, Target: target})
		}
	}
	return images, nil
}

func (im *importer) makeManifest(ctx context.Context, s savedImage) (ocispec.Descriptor, error) {
	config, err := im.find(s.Config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.digest, Size: config.size},
		Layers:    []ocispec.Descriptor{},
	}
	for _, name := range s.Layers {
		f, err := im.find(name)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if f, err = im.packed(ctx, f); err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: f.layerType(), Digest: f.digest, Size: f.size})
	}
	if len(m.Layers) > image.MaxLayers {
		return ocispec.Descriptor{}, invalidf("image has %d layers, at most %d can be mounted", len(m.Layers), image.MaxLayers)
	}
	c, err := image.ReadConfigOf(ctx, im.content, m.Config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return ocispec.Descriptor{}, invalidf("image has %d layers, its configuration lists %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make manifest: %w", err)
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := im.store(ctx, "made/"+d.Digest.String(), d.Digest, d.Size, bytes.NewReader(raw)); err != nil {
		return d, fmt.Errorf("store manifest: %w", err)
	}
	return d, nil
}

// find returns the stored file at a path, following the links that docker save writes for
// repeated layers.
func (im *importer) find(name string) (savedFile, error) {
	at := strings.TrimPrefix(path.Clean("/"+name), "/")
	const most = 16
	for range most {
		if f, ok := im.files[at]; ok {
			return f, nil
		}
		next, ok := im.links[at]
		if !ok {
			break
		}
		at = next
	}
	return savedFile{}, invalidf("archive has no file %.256q", name)
}

// JoinLayer returns a layer's media type by its first bytes.
func (f savedFile) layerType() string {
	switch {
	case bytes.HasPrefix(f.magic, []byte{0x1f, 0x8b}):
		return ocispec.MediaTypeImageLayerGzip
	case bytes.Equal(f.magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ocispec.MediaTypeImageLayerZstd
	default:
		return ocispec.MediaTypeImageLayer
	}
}
