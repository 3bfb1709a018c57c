package harness

import (
	"os"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image returns the archive of an OCI layout with an image of the given name: the test image, with a second layer
// that has /etc/layer.
func Image(t *testing.T, name string) []byte {
	t.Helper()
	layers := [][]byte{
		TarOf(t, BusyboxFiles(t)),
		TarOf(t, []File{{Name: "etc", Dir: true, Mode: 0o755}, {Name: "etc/layer", Body: "two\n", Mode: 0o644}}),
	}
	cfg := ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}}
	data, err := os.ReadFile(Layout{MediaType: ocispec.MediaTypeImageLayer, Stored: layers, Layers: layers, Config: cfg, Name: name}.Write(t))
	Must(t, err)
	return data
}
