package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxDocument bounds an index, a manifest or a configuration, in bytes.
	MaxDocument = 8 << 20
	// MaxNesting bounds indexes within indexes.
	MaxNesting = 8
	// MaxLayers bounds the layers of an image; overlay cannot mount more.
	MaxLayers = 500
)

// The media types of Docker that mean the same as OCI's.
const (
	dockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig    = "application/vnd.docker.container.image.v1+json"
	dockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeign   = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociLayerForeign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// AnnotationReference marks a manifest about another one in the same index, such as an attestation.
const AnnotationReference = "vnd.docker.reference.type"

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

// IsManifest reports whether a media type is that of a manifest.
func IsManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// IsConfig reports whether a media type is that of an image's configuration.
func IsConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == dockerConfig
}

// IsLayer reports whether a media type is that of a layer that can be applied.
func IsLayer(mediaType string) bool {
	for _, base := range [...]string{ocispec.MediaTypeImageLayer, ociLayerForeign, dockerLayer, dockerForeign} {
		rest, ok := strings.CutPrefix(mediaType, base)
		if ok && (rest == "" || rest == "+gzip" || rest == "+zstd" || rest == ".gzip" || rest == ".zstd") {
			return true
		}
	}
	return false
}

// IsForeign reports whether a media type is that of a layer that registries do not store.
func IsForeign(mediaType string) bool {
	return strings.HasPrefix(mediaType, dockerForeign) || strings.HasPrefix(mediaType, ociLayerForeign)
}

// ReadDocument returns a blob of bounded size, verified against the descriptor.
func ReadDocument(ctx context.Context, p Provider, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size < 0 || desc.Size > MaxDocument {
		return nil, invalidf("read %s %s: size %d exceeds the maximum of %d", desc.MediaType, desc.Digest, desc.Size, MaxDocument)
	}
	b, err := p.ReaderAt(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.MediaType, err)
	}
	defer func() { _ = b.Close() }()
	if b.Size() != desc.Size {
		return nil, invalidf("read %s %s: %d bytes, %d in its descriptor", desc.MediaType, desc.Digest, b.Size(), desc.Size)
	}
	raw := make([]byte, desc.Size)
	if _, err := b.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s %s: %w", desc.MediaType, desc.Digest, err)
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return nil, invalidf("read %s: digest %s, expected %s", desc.MediaType, got, desc.Digest)
	}
	return raw, nil
}

// shape holds the members that distinguish the documents.
type shape struct {
	MediaType string          `json:"mediaType"`
	Config    json.RawMessage `json:"config"`
	Layers    json.RawMessage `json:"layers"`
	FSLayers  json.RawMessage `json:"fsLayers"`
	History   json.RawMessage `json:"history"`
	Manifests json.RawMessage `json:"manifests"`
}

// checkShape refuses a document that does not match its descriptor's type, or also matches
// another.
func checkShape(raw []byte, mediaType string) error {
	var s shape
	if err := json.Unmarshal(raw, &s); err != nil {
		return invalidf("read %s: %w", mediaType, err)
	}
	if s.MediaType != "" && s.MediaType != mediaType {
		return invalidf("document is ambiguous: media type %q, %q in its descriptor", s.MediaType, mediaType)
	}
	switch {
	case IsIndex(mediaType) && (s.Config != nil || s.Layers != nil || s.FSLayers != nil):
		return invalidf("document is ambiguous: both index and manifest")
	case IsManifest(mediaType) && (s.Manifests != nil || s.FSLayers != nil):
		return invalidf("document is ambiguous: both manifest and index")
	case IsManifest(mediaType) && s.Config == nil:
		return invalidf("manifest has no config")
	}
	return nil
}

// ParseIndex parses an index of a media type. One that is ambiguous is errdefs.ErrInvalidArgument.
func ParseIndex(raw []byte, mediaType string) (ocispec.Index, error) {
	var index ocispec.Index
	if err := checkShape(raw, mediaType); err != nil {
		return index, err
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, invalidf("read index: %w", err)
	}
	for _, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return index, fmt.Errorf("index: %w", err)
		}
	}
	return index, nil
}

// ParseManifest parses a manifest of a media type. One that is ambiguous, or has more than MaxLayers layers, is
// errdefs.ErrInvalidArgument.
func ParseManifest(raw []byte, mediaType string) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := checkShape(raw, mediaType); err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, invalidf("read manifest: %w", err)
	}
	if len(m.Layers) > MaxLayers {
		return m, invalidf("manifest has %d layers, at most %d can be mounted", len(m.Layers), MaxLayers)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return m, fmt.Errorf("manifest: %w", err)
		}
	}
	return m, nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return invalidf("descriptor %.160q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return invalidf("descriptor %s: size %d", d.Digest, d.Size)
	}
	return nil
}

// ReadIndex returns the index that desc names.
func ReadIndex(ctx context.Context, p Provider, desc ocispec.Descriptor) (ocispec.Index, error) {
	raw, err := ReadDocument(ctx, p, desc)
	if err != nil {
		return ocispec.Index{}, err
	}
	return ParseIndex(raw, desc.MediaType)
}

// ReadManifest returns the manifest that desc names.
func ReadManifest(ctx context.Context, p Provider, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	raw, err := ReadDocument(ctx, p, desc)
	if err != nil {
		return ocispec.Manifest{}, err
	}
	return ParseManifest(raw, desc.MediaType)
}

// ReadConfigOf returns the configuration that desc names.
func ReadConfigOf(ctx context.Context, p Provider, desc ocispec.Descriptor) (ocispec.Image, error) {
	raw, err := ReadDocument(ctx, p, desc)
	if err != nil {
		return ocispec.Image{}, err
	}
	config, err := parseConfig(raw)
	if err != nil {
		return config, fmt.Errorf("configuration %s: %w", desc.Digest, err)
	}
	return config, nil
}

// TopSnapshot returns the name of an image's topmost snapshot, by the image's configuration; "" for
// one without layers.
func TopSnapshot(ctx context.Context, p Provider, config digest.Digest) (string, error) {
	b, err := p.ReaderAt(ctx, config)
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	size := b.Size()
	_ = b.Close() // only read
	c, err := ReadConfigOf(ctx, p, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config, Size: size})
	if err != nil || len(c.RootFS.DiffIDs) == 0 {
		return "", err
	}
	chain := ChainIDs(c.RootFS.DiffIDs)
	return chain[len(chain)-1].String(), nil
}

// ChainIDs returns, for each layer, the name of the file system made of it and the layers
// below it.
func ChainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(append([]digest.Digest(nil), diffIDs...))
}

// PlainTarget returns a descriptor without the members that an index may add to it.
func PlainTarget(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
