package registry

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// TestCreate_StalledPulls_DoNotDelay stalls twenty pulls in the middle of a layer, and concurrently creates, lists
// and removes containers.
func TestCreate_StalledPulls_DoNotDelay(t *testing.T) {
	t.Parallel()
	const pulls = 20
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	for i := range pulls {
		layer := harness.TarOf(t, []harness.File{{Name: "f", Body: fmt.Sprint("layer ", i), Mode: 0o644}})
		r.Skopeo("oci-archive:"+harness.OCIArchive(t, [][]byte{layer}, harness.BusyboxConfig(), nil), fmt.Sprintf("docker://%s/box%d:1", r.Host, i))
	}
	d := harness.Start(t)
	d.Busybox()
	var waiting atomic.Int32
	release := make(chan struct{})
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			waiting.Add(1)
			select {
			case <-release:
			case <-req.Context().Done():
			}
		}
		return false
	})
	var all sync.WaitGroup
	for i := range pulls {
		all.Go(func() { d.Cleat("pull", "--quiet", fmt.Sprintf("%s/box%d:1", r.Host, i)) })
	}
	d.Eventually("every pull waits for its registry", func() error {
		if n := waiting.Load(); n < pulls {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	harness.Within(t, "run, list, exec and rm during the pulls", func() {
		d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
		if out := d.Cleat("exec", "c", "echo", "in"); out != "in" {
			t.Errorf("exec: %q", out)
		}
		d.Cleat("ps")
		d.Cleat("image", "ls")
		d.Cleat("rm", "--force", "c")
	})
	close(release)
	all.Wait()
	for i := range pulls {
		d.Cleat("image", "rm", fmt.Sprintf("%s/box%d:1", r.Host, i))
	}
}
