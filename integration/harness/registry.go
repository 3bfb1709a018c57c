package harness

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Trust returns a directory of registry configurations in which hosts.toml of a registry names its CA.
func (r *Registry) Trust() string {
	r.t.Helper()
	dir := r.t.TempDir()
	Must(r.t, os.Mkdir(filepath.Join(dir, r.Host), 0o755))
	Must(r.t, os.WriteFile(filepath.Join(dir, r.Host, "hosts.toml"), fmt.Appendf(nil, "server = \"https://%s\"\nca = %q\n", r.Host, r.CA), 0o600))
	return dir
}

// Registry is Debian's docker-registry on loopback with its own storage, behind a proxy that counts the traffic and
// can interfere with it.
type Registry struct {
	t    *testing.T
	Host string // the proxy's address
	// direct reaches the registry itself, for every host in a URL.
	Direct *http.Client
	TLS    bool
	User   string // user:password; "" permits anonymous access
	CA     string // path, with TLS

	// Sent counts the bytes of blobs in responses, Blobs the requests for blobs.
	Sent, Blobs atomic.Int64
	// Uploads counts the requests that send a blob.
	Uploads   atomic.Int64
	underWay  atomic.Int64 // requests
	mu        sync.Mutex
	interfere func(w http.ResponseWriter, r *http.Request) bool
}

// Alice is the user of registries with authentication, aliceHash her line in htpasswd.
const (
	Alice     = "alice:s3cret-pw"
	aliceHash = "alice:$2b$04$4IXdhAp65LvJHnQYjp2CKe1yRiTQS2Dd78FjeDjem.KU2EToih/wO"
)

// Quiet is a logger that discards.
func Quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// RegistryOptions select the kind of registry.
type RegistryOptions struct {
	TLS  bool
	User string
}

// StartRegistry starts a registry, which is stopped at the end of the test.
func StartRegistry(t *testing.T, o RegistryOptions) *Registry {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-registry") // short, for the socket; another program may take a free port
	Must(t, err)
	t.Cleanup(func() { Must(t, os.RemoveAll(dir)) })
	socket := filepath.Join(dir, "s")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	r := &Registry{t: t, TLS: o.TLS, User: o.User, Direct: &http.Client{Transport: transport}}
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  net: unix\n  addr: %s\n", filepath.Join(dir, "data"), socket)
	if o.User != "" {
		Must(t, os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(aliceHash+"\n"), 0o600))
		config += fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %s\n", filepath.Join(dir, "htpasswd"))
	}
	path := filepath.Join(dir, "config.yml")
	Must(t, os.WriteFile(path, []byte(config), 0o600))
	var said bytes.Buffer
	cmd := exec.Command("docker-registry", "serve", path)
	cmd.Stdout, cmd.Stderr = &said, &said
	Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err == nil {
			t.Error("a killed registry exited with 0")
		}
	})
	Eventually(t, "the registry answers", func() error {
		resp, err := r.Direct.Get("http://registry/v2/")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	r.front(dir)
	return r
}

// front puts the proxy before the registry.
func (r *Registry) front(dir string) {
	target := &url.URL{Scheme: "http", Host: "registry"}
	proxy := &httputil.ReverseProxy{
		Transport: r.Direct.Transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
			p.SetXForwarded()
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {}, // clients leave
		ErrorLog:     Quiet(),
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.underWay.Add(1)
		defer r.underWay.Add(-1)
		r.mu.Lock()
		interfere := r.interfere
		r.mu.Unlock()
		if interfere != nil && interfere(w, req) {
			return
		}
		if strings.Contains(req.URL.Path, "/blobs/sha256:") && req.Method == http.MethodGet {
			r.Blobs.Add(1)
			w = &metered{w, &r.Sent}
		}
		if strings.Contains(req.URL.Path, "/blobs/uploads/") && req.Method == http.MethodPut {
			r.Uploads.Add(1)
		}
		proxy.ServeHTTP(w, req)
	}))
	srv.Config.ErrorLog = Quiet()
	if r.TLS {
		srv.StartTLS()
		r.CA = filepath.Join(dir, "ca.pem")
		Must(r.t, os.WriteFile(r.CA, pemOf(srv.Certificate()), 0o600))
	} else {
		srv.Start()
	}
	r.t.Cleanup(srv.Close)
	r.Host = srv.Listener.Addr().String()
}

// metered counts the bytes of a response.
type metered struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *metered) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *metered) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Skopeo copies an image as the registry's user, over TLS if the registry has it.
func (r *Registry) Skopeo(from, to string) {
	r.t.Helper()
	args := []string{"--insecure-policy", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"}
	if r.User != "" && strings.HasPrefix(from, "docker://") {
		args = append(args, "--src-creds", r.User)
	}
	if r.User != "" && strings.HasPrefix(to, "docker://") {
		args = append(args, "--dest-creds", r.User)
	}
	Tool(r.t, r.t.TempDir(), "skopeo", append(args, from, to)...)
}

// Digest returns the digest of a name in the registry, according to skopeo.
func (r *Registry) Digest(name string) string {
	r.t.Helper()
	args := []string{"inspect", "--tls-verify=false", "--format", "{{.Digest}}"}
	if r.User != "" {
		args = append(args, "--creds", r.User)
	}
	out, err := exec.Command("skopeo", append(args, "docker://"+r.Host+"/"+name)...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("skopeo inspect %s: %v\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}
