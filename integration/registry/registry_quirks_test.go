package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/image/registry/registrytest"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestRegistry_WithQuirks pulls from, runs from and pushes to each kind of registry with a real daemon.
// image/registry tests pairs of quirks.
func TestRegistry_WithQuirks(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	const config = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`
	for _, q := range registrytest.Quirks() {
		t.Run(q.Group+"/"+q.Name, func(t *testing.T) {
			reg := fixture.StartFakeRegistry(t, q)
			want := reg.Image("a/b", "1", config, layer, harness.TarOf(t, []harness.File{{Name: "quirk", Mode: 0o644, Body: q.Name}}))
			from, user := reg.Host+"/a/b:1", registrytest.User+":"+registrytest.Password
			if out, errs, code := d.Try("pull", "--quiet", "--user", user, from); code != 0 || !strings.Contains(out, want.Digest.String()) {
				t.Fatalf("pull: exit code %d: %s%s%s", code, out, errs, strings.Join(reg.Requests(), "\n"))
			}
			if out, errs, code := d.Try("run", "--rm", from, "cat", "/quirk"); code != 0 || out != q.Name {
				t.Errorf("run: exit code %d: %q %s", code, out, errs)
			}
			for _, to := range []string{"c/d:1", "c/d:1", "a/b:2"} {
				if out, errs, code := d.Try("push", "--quiet", "--user", user, reg.Host+"/"+to, from); code != 0 {
					t.Fatalf("push to %s: exit code %d: %s%s%s", to, code, out, errs, strings.Join(reg.Requests(), "\n"))
				}
				repository, tag, _ := strings.Cut(to, ":")
				if doc, ok := reg.Tagged(repository, tag); !ok || digest.FromBytes(doc.Raw) != want.Digest {
					t.Errorf("pushed to %s: %s", to, doc.Raw)
				}
			}
			d.Cleat("image", "rm", from)
		})
	}
}

// TestMirrors_ReceiveNameOfRegistry pulls images that only a mirror has, by tag and by digest.
func TestMirrors_ReceiveNameOfRegistry(t *testing.T) {
	t.Parallel()
	certs := t.TempDir()
	config := filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.WriteFile(config, []byte("registry_config_path = \""+certs+"\"\n"), 0o600))
	d := harness.Start(t, "--config", config)
	mirror := fixture.StartFakeRegistry(t, registrytest.Quirk{})
	const doc = `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":LAYERS}}`
	desc := mirror.Image("library/zz", "1", doc, harness.TarOf(t, harness.BusyboxFiles(t)))
	for _, registry := range []string{"_default", "docker.io"} {
		harness.Must(t, os.MkdirAll(filepath.Join(certs, registry), 0o700))
		harness.Must(t, os.WriteFile(filepath.Join(certs, registry, "hosts.toml"),
			[]byte("[host.\"http://"+mirror.Host+"\"]\ncapabilities = [\"pull\", \"resolve\"]\n"), 0o600))
	}
	for ref, ns := range map[string]string{
		"quay.example/library/zz:1":                        "quay.example",
		"quay.example:5000/library/zz:1":                   "quay.example%3A5000",
		"other.example/library/zz@" + desc.Digest.String(): "other.example",
		"zz:1": "docker.io",
		"index.docker.io/library/zz@" + desc.Digest.String(): "docker.io",
	} {
		before := len(mirror.Requests())
		d.Cleat("pull", "--quiet", ref)
		asked := mirror.Requests()[before:]
		if len(asked) == 0 {
			t.Errorf("%s: no request to the mirror", ref)
		}
		for _, r := range asked {
			if !strings.HasSuffix(r, "?ns="+ns) {
				t.Errorf("%s: request %s without ns=%s", ref, r, ns)
			}
		}
		d.Cleat("image", "rm", ref)
	}
}
