package image

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
)

// Format is the format of an image's documents.
type Format string

// The formats; they differ in media types only.
const (
	FormatOCI    Format = "oci"
	FormatDocker Format = "docker"
)

// layerBases are the media types of layers without their compression, OCI's next to Docker's.
func layerBases() [][2]string {
	return [][2]string{{ocispec.MediaTypeImageLayer, dockerLayer}, {ociLayerForeign, dockerForeign}}
}

// SplitLayer parses the media type of a layer: whether registries do not store it, and its
// compression.
func SplitLayer(mediaType string) (format Format, foreign bool, c archive.Compression, ok bool) {
	if !IsLayer(mediaType) {
		return "", false, "", false
	}
	for i, pair := range layerBases() {
		for j, base := range pair {
			if rest, found := strings.CutPrefix(mediaType, base); found {
				return [...]Format{FormatOCI, FormatDocker}[j], i == 1, archive.Compression(strings.TrimLeft(rest, "+.")), true
			}
		}
	}
	return "", false, "", false
}

// JoinLayer returns the media type of a layer.
func JoinLayer(format Format, foreign bool, c archive.Compression) string {
	pair := layerBases()[0]
	if foreign {
		pair = layerBases()[1]
	}
	base, between := pair[0], "+"
	if format == FormatDocker {
		base, between = pair[1], "."
	}
	if c == archive.Uncompressed {
		return base
	}
	return base + between + string(c)
}

// Formatted returns the equivalent media type of a format; unknown ones are unchanged.
func Formatted(mediaType string, format Format) string {
	if _, foreign, c, ok := SplitLayer(mediaType); ok && format != "" {
		return JoinLayer(format, foreign, c)
	}
	for _, pair := range [][2]string{
		{ocispec.MediaTypeImageIndex, dockerIndex}, {ocispec.MediaTypeImageManifest, dockerManifest}, {ocispec.MediaTypeImageConfig, dockerConfig},
	} {
		if mediaType == pair[0] || mediaType == pair[1] {
			switch format {
			case FormatOCI:
				return pair[0]
			case FormatDocker:
				return pair[1]
			}
		}
	}
	return mediaType
}

// LayerType returns OCI's media type of a layer with this compression.
func LayerType(c archive.Compression) string { return JoinLayer(FormatOCI, false, c) }
