package image

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseConfig_FieldsThatDockerTolerates(t *testing.T) {
	const layer = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for text, want := range map[string]struct {
		arch, user string
		layers     int
	}{
		`{}`: {},
		`{"architecture":null,"os":null,"config":null,"rootfs":null,"history":null,"created":null}`:           {},
		`{"architecture":"arm64","created":"","config":{"User":"www","Entrypoint":"sh","ExposedPorts":null}}`: {"arm64", "www", 0},
		`{"architecture":["a"],"config":{"User":1000,"Cmd":{},"Volumes":[]}}`:                                 {"", "1000", 0},
		`{"architecture":"amd64","config":{"Volumes":["/a"],"User":"x"},"history":"none"}`:                    {"amd64", "x", 0},
		`{"rootfs":{"diff_ids":["` + layer + `"]}}`:                                                           {"", "", 1},
		`{"rootfs":{"type":7,"diff_ids":["` + layer + `"]}}`:                                                  {"", "", 1},
		`{"rootfs":{"type":"layers","diff_ids":null}}`:                                                        {},
	} {
		c, err := parseConfig([]byte(text))
		if err != nil || c.Architecture != want.arch || c.Config.User != want.user || len(c.RootFS.DiffIDs) != want.layers {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	for _, text := range []string{``, `7`, `[]`, `{"rootfs":{"diff_ids":"x"}}`, `{"rootfs":{"diff_ids":["x"]}}`, `{"rootfs":[]}`} {
		if _, err := parseConfig([]byte(text)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
