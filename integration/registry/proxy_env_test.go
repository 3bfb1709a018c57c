package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// forward is a proxy that maps every name to the registry.
type forward struct {
	*httptest.Server
	to string

	mu    sync.Mutex
	asked []string // method and host of each request
}

func startForward(t *testing.T, to string) *forward {
	t.Helper()
	f := &forward{to: to}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	f.Config.ErrorLog = harness.Quiet()
	t.Cleanup(f.Close)
	return f
}

func (f *forward) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.Host)
	f.mu.Unlock()
	if r.Method == http.MethodConnect {
		f.tunnel(w)
		return
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Host = "", f.to
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client may leave
}

// tunnel connects the client to the registry.
func (f *forward) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", f.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	w.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(there, buffered)
		_ = there.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(here, there)
	_ = here.Close()
	wg.Wait()
}

// requests returns the number of requests, and fails the test if one does not begin with prefix.
func (f *forward) requests(t *testing.T, begins string) int {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if !strings.HasPrefix(a, begins) {
			t.Errorf("request %q through the proxy", a)
		}
	}
	return len(f.asked)
}

func TestPull_UsesProxyOfEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		t.Setenv(name, "")
	}
	archive := harness.ToolArchives(t)["skopeo's OCI archive"]
	pulls := func(t *testing.T, name, hosts string) {
		t.Helper()
		certs := t.TempDir()
		harness.Must(t, os.Mkdir(filepath.Join(certs, name), 0o755))
		harness.Must(t, os.WriteFile(filepath.Join(certs, name, "hosts.toml"), []byte(hosts), 0o600))
		d := StartFor(t, certs)
		ref := name + "/some/box:1"
		d.Cleat("pull", ref)
		d.Cleat("image", "tag", ref, name+"/other/box:1")
		d.Cleat("push", name+"/other/box:1")
		d.Cleat("image", "prune", "--all")
		d.NoRemains("pulls through a proxy")
	}
	t.Run("plain", func(t *testing.T) {
		r := harness.StartRegistry(t, harness.RegistryOptions{})
		r.Skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
		f := startForward(t, r.Host)
		t.Setenv("HTTP_PROXY", f.URL)
		pulls(t, "reg.example", "server = \"http://reg.example\"\n")
		if n := f.requests(t, ""); n == 0 {
			t.Error("no request through the proxy")
		}
	})
	t.Run("TLS", func(t *testing.T) {
		r := harness.StartRegistry(t, harness.RegistryOptions{TLS: true})
		r.Skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
		f := startForward(t, r.Host)
		t.Setenv("HTTPS_PROXY", f.URL)
		pulls(t, "example.com", fmt.Sprintf("server = \"https://example.com\"\nca = %q\n", r.CA)) // as in its certificate
		if n := f.requests(t, "CONNECT example.com:443"); n == 0 {
			t.Error("no request through the proxy")
		}
	})
	t.Run("excepted hosts", func(t *testing.T) {
		r := harness.StartRegistry(t, harness.RegistryOptions{})
		r.Skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
		f := startForward(t, r.Host)
		t.Setenv("HTTP_PROXY", f.URL)
		_, port, err := net.SplitHostPort(r.Host)
		harness.Must(t, err)
		name := "0.0.0.0:" + port // this machine, by an address that is not excepted by default
		pulls(t, name, fmt.Sprintf("server = \"http://%s\"\n", name))
		if n := f.requests(t, ""); n == 0 {
			t.Error("no request through the proxy: the test is void")
		}
		f.mu.Lock()
		f.asked = nil
		f.mu.Unlock()
		t.Setenv("NO_PROXY", "somewhere.example,0.0.0.0")
		pulls(t, name, fmt.Sprintf("server = \"http://%s\"\n", name))
		if n := f.requests(t, "nothing"); n != 0 {
			t.Errorf("%d requests through the proxy", n)
		}
	})
}
