package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image/registry/registrytest"
)

// fakeRegistry is a registry whose responses a test can change; registry_test.go starts docker-registry.
type fakeRegistry struct {
	*registrytest.Registry
	t *testing.T
}

func startFakeRegistry(t *testing.T, q registrytest.Quirk) fakeRegistry {
	t.Helper()
	r, err := registrytest.New(q)
	must(t, err)
	t.Cleanup(r.Close)
	return fakeRegistry{r, t}
}

// image puts an image with the given configuration, in which LAYERS is replaced by the digests of the unpacked
// layers.
func (r fakeRegistry) image(repository, tag, config string, layers ...[]byte) ocispec.Descriptor {
	r.t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	var ids []string
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: r.AddBlob(repository, l), Size: int64(len(l))})
		ids = append(ids, fmt.Sprintf("%q", digest.FromBytes(l)))
	}
	config = strings.ReplaceAll(config, "LAYERS", "["+strings.Join(ids, ",")+"]")
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: r.AddBlob(repository, []byte(config)), Size: int64(len(config))}
	return r.document(repository, tag, m.MediaType, m)
}

// index puts an index of images.
func (r fakeRegistry) index(repository, tag string, images ...ocispec.Descriptor) ocispec.Descriptor {
	r.t.Helper()
	return r.document(repository, tag, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: images,
	})
}

func (r fakeRegistry) document(repository, tag, mediaType string, v any) ocispec.Descriptor {
	r.t.Helper()
	raw, err := json.Marshal(v)
	must(r.t, err)
	return ocispec.Descriptor{MediaType: mediaType, Digest: r.AddDocument(repository, tag, mediaType, raw), Size: int64(len(raw))}
}
