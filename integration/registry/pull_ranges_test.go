package registry

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/integration/harness"
)

// A large layer is fetched by several requests, and after kill -9 only its missing ranges.
func TestPull_ByRanges(t *testing.T) {
	t.Parallel()
	const piece = 4 << 20 // the size of a range in image/registry
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	layers := harness.LayersOf(t, 1, 5*piece)
	big := layers[1]
	r.Image("big/box", "1", harness.Amd64, layers...)
	// An address of this machine other than loopback, because loopback registries are not asked for ranges.
	_, port, err := net.SplitHostPort(r.Host)
	harness.Must(t, err)
	name := "0.0.0.0:" + port
	certs, config := t.TempDir(), filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.Mkdir(filepath.Join(certs, name), 0o755))
	harness.Must(t, os.WriteFile(filepath.Join(certs, name, "hosts.toml"), fmt.Appendf(nil, "server = \"http://%s\"\n", name), 0o600))
	harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\nregistry_config_path = %q\nregistry_range_from = %d\n", certs, piece), 0o600))
	d := harness.Start(t, "--config", config)
	ref := name + "/big/box:1"
	stalled, free := make(chan struct{}, 100), make(chan struct{})
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.HasSuffix(req.URL.Path, digest.FromBytes(big).String()) && strings.HasPrefix(req.Header.Get("Range"), fmt.Sprintf("bytes=%d-", 2*piece)) {
			stalled <- struct{}{}
			select {
			case <-req.Context().Done():
			case <-free:
			}
			return true
		}
		return false
	})
	cmd := d.Command("pull", ref)
	harness.Must(t, cmd.Start())
	<-stalled
	d.AwaitIngest(2*piece, len(layers)+1)
	d.Kill9()
	close(free)
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted pull succeeded")
	}
	r.Interfere(nil)
	d.Begin()
	sent, blobs := r.SentBytes(), r.Blobs.Load()
	d.Cleat("pull", ref)
	if sent, want := r.SentBytes()-sent, int64(len(big)-2*piece); sent != want {
		t.Errorf("the resumed pull was sent %d bytes, missing were %d", sent, want)
	}
	if n := r.Blobs.Load() - blobs; n < 3 {
		t.Errorf("fetched by %d requests", n)
	}
	if out := d.Cleat("run", "--rm", ref, "sh", "-c", "ls /noise* | wc -l"); out != "1" {
		t.Errorf("%q", out)
	}
	d.Cleat("image", "rm", ref)
	d.NoRemains("a pull by ranges")
}
