package images

import (
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/fixture"
)

// index puts an index of images.
func index(r fixture.FakeRegistry, repository, tag string, images ...ocispec.Descriptor) ocispec.Descriptor {
	r.T.Helper()
	return r.Document(repository, tag, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: images,
	})
}
