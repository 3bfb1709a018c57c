package registry

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// configured writes a hosts.toml for a folder and returns its parent directory.
func configured(t *testing.T, folder, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, folder, hostsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestParseHosts_KeepsFileOrder(t *testing.T) {
	dir := configured(t, "docker.io", `
server = "https://docker.example"
[host."https://zeta.example"]
  capabilities = ["pull", "resolve"]
  ca = "ca.pem"
  client = [["c.pem", "/abs/k.pem"]]
  dial_timeout = "3s"
  [host."https://zeta.example".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."http://alpha.example:81/api/v2"]
  skip_verify = true
  override_path = true
[host."beta.example"]
  capabilities = []
`)
	hosts, err := New(Options{}).hostsFor(dir, "docker.io", "")
	if err != nil {
		t.Fatal(err)
	}
	var bases []string
	for _, h := range hosts {
		bases = append(bases, h.base.String())
	}
	want := []string{"https://zeta.example/v2", "http://alpha.example:81/api/v2", "https://beta.example/v2", "https://docker.example/v2"}
	if !reflect.DeepEqual(bases, want) {
		t.Fatalf("%q", bases)
	}
	at := filepath.Join(dir, "docker.io")
	z := hosts[0]
	if z.can != canPull|canResolve || z.own || z.ca[0] != filepath.Join(at, "ca.pem") || z.dial != 3*time.Second ||
		!reflect.DeepEqual(z.clients, []keyPair{{filepath.Join(at, "c.pem"), "/abs/k.pem"}}) || len(z.header["X-Two"]) != 2 {
		t.Errorf("%+v", z)
	}
	if !hosts[1].skipVerify || hosts[2].can != 0 || !hosts[3].own || hosts[3].can != canAll {
		t.Errorf("%+v", hosts)
	}
}

// Files written for peers list the registry itself among the hosts: that is not a mirror.
func TestParseHosts_Registry_IsNotAMirror(t *testing.T) {
	for name, c := range map[string]struct {
		text        string
		own         bool
		first, last capability
	}{
		"with its server":    {"server = \"https://r.example:5000\"\n[host.\"https://r.example:5000\"]\nskip_verify = true", true, canAll, 0},
		"without a server":   {"[host.\"https://r.example:5000\"]", true, canAll, 0},
		"for some requests":  {"[host.\"https://r.example:5000\"]\ncapabilities = [\"pull\", \"resolve\"]", true, canPull | canResolve, canPush},
		"plain, as its only": {"[host.\"http://r.example:5000\"]", true, canAll, 0},
		"plain, a TLS one's": {"server = \"https://r.example:5000\"\n[host.\"http://r.example:5000\"]", false, canAll, canAll},
		"another port":       {"[host.\"https://r.example:5001\"]", false, canAll, canAll},
		"another place":      {"[host.\"https://r.example:5000/proxy\"]", false, canAll, canAll},
	} {
		hosts, err := New(Options{}).hostsFor(configured(t, "r.example:5000", c.text), "r.example:5000", "")
		if err != nil || len(hosts) != 2 || hosts[0].own != c.own || hosts[0].can != c.first || !hosts[1].own || hosts[1].can != c.last {
			t.Errorf("%s: %+v, %v", name, hosts, err)
		}
	}
}

func TestHostsFor_SelectsFolder(t *testing.T) {
	for folder, registry := range map[string]string{
		"localhost:5000": "localhost:5000", "localhost_5000_": "localhost:5000", "_default": "any.example",
	} {
		hosts, err := New(Options{}).hostsFor(configured(t, folder, `server = "http://elsewhere:1"`), registry, "")
		if err != nil || len(hosts) != 1 || hosts[0].base.String() != "http://elsewhere:1/v2" {
			t.Errorf("%s: %+v, %v", folder, hosts, err)
		}
	}
	hosts, err := New(Options{}).hostsFor(t.TempDir(), "docker.io", "")
	if err != nil || hosts[0].base.String() != "https://registry-1.docker.io/v2" || hosts[0].guess {
		t.Errorf("%+v, %v", hosts, err)
	}
}

func TestHostsFor_GuessesPlainHTTPForLoopbackOnly(t *testing.T) {
	for registry, want := range map[string]bool{
		"localhost:5000": true, "127.9.9.9:80": true, "[::1]:5000": true, "localhost": true,
		"10.0.0.1:5000": false, "localhost.example:5000": false, "127.0.0.1.nip.io": false, "[::2]:5000": false,
	} {
		hosts, err := New(Options{}).hostsFor("", registry, "")
		if err != nil || hosts[0].guess != want || hosts[0].base.Scheme != "https" {
			t.Errorf("%s: %+v, %v", registry, hosts, err)
		}
	}
}

func TestHostsFor_MirrorsGetRegistryName(t *testing.T) {
	for registry, hosts := range map[string]map[string]string{ // the registry that is passed to each
		"x.example":      {"https://mirror.example": "x.example", "https://x.example": "", "127.0.0.1:5000": "x.example"},
		"docker.io":      {"https://mirror.example": "docker.io", "https://registry-1.docker.io": "", "https://docker.io": ""},
		"localhost:5000": {"http://localhost:5000": "", "http://localhost:5001": "localhost:5000"},
	} {
		for host, want := range hosts {
			got, err := New(Options{}).hostsFor(configured(t, registry, fmt.Sprintf("[host.%q]\n", host)), registry, "")
			if err != nil || len(got) != 2 || got[0].ns != want || got[1].ns != "" || got[0].guess != (host == "127.0.0.1:5000") {
				t.Errorf("%s, host %s: %+v, %v", registry, host, got, err)
			}
		}
	}
	got, err := New(Options{}).hostsFor(configured(t, "x.example", `server = "https://other.example"`), "x.example", "")
	if err != nil || len(got) != 1 || got[0].ns != "x.example" {
		t.Errorf("another server: %+v, %v", got, err)
	}
}

// A remote registry could otherwise cause requests to services of this machine.
func TestCheckRedirect_ToThisMachine_IsRefused(t *testing.T) {
	at := func(host string) *http.Request { return &http.Request{URL: &url.URL{Scheme: "https", Host: host}} }
	for host, refused := range map[string]bool{
		"localhost": true, "LocalHost:80": true, "localhost.:80": true, "x.localhost": true, "127.9.9.9": true, "[::1]:80": true,
		"[::ffff:127.0.0.1]": true, "0.0.0.0:80": true, "[::]": true, "[::ffff:0.0.0.0]:1": true,
		"localhost.example": false, "blobs.example:443": false, "127.0.0.1.example": false, "10.0.0.1": false,
	} {
		if err := checkRedirect(at(host), []*http.Request{at("far.example")}); refused != (err != nil) {
			t.Errorf("%s: %v", host, err)
		}
		if err := checkRedirect(at(host), []*http.Request{at("localhost:5000")}); err != nil {
			t.Errorf("%s, from this machine: %v", host, err)
		}
	}
}

func TestParseHosts_RefusesInvalidFiles(t *testing.T) {
	for _, text := range []string{
		"server = 1", "server = \"ftp://x\"", "server = \"https://user:secret@x\"", "[host.\"https://a\"]\ncapabilities = [\"fly\"]",
		"[host.\"https://a\"]\nca = 5", "[host.\"https://a\"]\ndial_timeout = \"soon\"", "[host.\"https://a\"]\nclient = [[\"a\",\"b\",\"c\"]]", "[[",
	} {
		if _, err := New(Options{}).hostsFor(configured(t, "x.example", text), "x.example", ""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Unknown keys are ignored, and logged.
func TestParseHosts_UnknownKeys_AreIgnoredAndLogged(t *testing.T) {
	for text, keys := range map[string]string{
		"[host.\"https://a\"]\ncapabilites = [\"pull\"]\nskip_verify = true\n": "host.https://a.capabilites",
		"severs = \"x\"\n[host.\"https://a\"]\nskip_verify = true\n":           "severs",
		"[host.\"https://a\"]\nskip_verify = true\nheader = {x-any = \"y\"}\n": "",
	} {
		var log bytes.Buffer
		c := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		hosts, err := c.hostsFor(configured(t, "x.example", text), "x.example", "")
		if err != nil || len(hosts) != 2 || !hosts[0].skipVerify {
			t.Errorf("%q: %+v, %v", text, hosts, err)
		}
		if said := log.String(); keys == "" && said != "" || !strings.Contains(said, keys) || keys != "" && !strings.Contains(said, "hosts.toml") {
			t.Errorf("%q: the log says %q", text, said)
		}
	}
}

func FuzzParseHosts(f *testing.F) {
	f.Add([]byte("server = \"https://a\"\n[host.\"https://b\"]\ncapabilities=[\"pull\"]\n[host.\"https://b\".header]\nx=\"y\"\n"))
	f.Add([]byte("[host]\n[host.a.b]\nclient=[[\"a\",\"b\"],\"c\"]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		hosts, _, err := parseHosts(raw, "r.example", "/dir", "")
		if err != nil {
			return
		}
		if last := hosts[len(hosts)-1]; !last.own {
			t.Errorf("%q: the registry itself is not asked last: %+v", raw, hosts)
		}
		for _, h := range hosts {
			if h.base.Scheme != "http" && h.base.Scheme != "https" || h.base.Host == "" {
				t.Errorf("%q: %+v", raw, h)
			}
		}
	})
}
