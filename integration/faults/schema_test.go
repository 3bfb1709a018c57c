package faults

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

// schema2 puts the test image with Docker's media types into a repository: under a tag, or in a list with other
// platforms. It returns the digest of the tag.
func schema2(r *harness.Registry, t *testing.T, repository, tag string, architectures ...string) string {
	t.Helper()
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(layer)
	harness.Must(t, err)
	harness.Must(t, z.Close())
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: harness.DockerList}
	for _, arch := range architectures {
		p := ocispec.Platform{OS: "linux", Architecture: arch}
		raw, err := json.Marshal(map[string]any{
			"architecture": arch, "os": "linux", "docker_version": "20.10", "container": "0123", "config": map[string]any{
				"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sh"}, "Healthcheck": map[string]any{"Test": []string{"NONE"}}, "OnBuild": []string{},
			}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest.FromBytes(layer).String()}},
		})
		harness.Must(t, err)
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: harness.DockerManifest}
		m.Config = r.Blob(repository, harness.DockerConfig, raw)
		m.Layers = []ocispec.Descriptor{r.Blob(repository, harness.DockerLayer, packed.Bytes())}
		at := ""
		if len(architectures) == 1 {
			at = tag
		}
		d := r.Document(repository, at, harness.DockerManifest, m)
		d.Platform = &p
		list.Manifests = append(list.Manifests, d)
	}
	if len(architectures) == 1 {
		return list.Manifests[0].Digest.String()
	}
	return r.Document(repository, tag, harness.DockerList, list).Digest.String()
}

func TestDockerSchema2_PullAndPush(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	for name, archs := range map[string][]string{"one": {"amd64"}, "many": {"amd64", "arm64"}} {
		want := schema2(r, t, "s2/"+name, "1", archs...)
		ref := r.Host + "/s2/" + name + ":1"
		if out := d.Cleat("pull", "--all-platforms", ref); out != ref+"@"+want {
			t.Errorf("%s: %q", name, out)
		}
		if out := d.Cleat("run", "--rm", ref, "echo", "runs"); out != "runs" {
			t.Errorf("%s: %q", name, out)
		}
		// Pushed, exported and imported, the image is byte-identical.
		d.Cleat("push", r.Host+"/copy/"+name+":2", ref)
		if got := r.Digest("copy/" + name + ":2"); got != want {
			t.Errorf("%s: pushed %s, want %s", name, got, want)
		}
		r.Skopeo("docker://"+r.Host+"/copy/"+name+":2", "dir:"+filepath.Join(t.TempDir(), "out"))
		path := filepath.Join(t.TempDir(), "a.tar")
		d.Cleat("image", "export", "-o", path, ref)
		d.Cleat("image", "rm", ref)
		d.Cleat("image", "import", path)
		if got := d.DigestOf(ref); got != want {
			t.Errorf("%s: imported %s, want %s", name, got, want)
		}
		// Commits have OCI media types and keep the members of Docker's configuration that OCI does not define.
		d.Cleat("run", "--name", "c", ref, "touch", "/made")
		d.Cleat("commit", "c", "made")
		if text := d.Cleat("image", "inspect", "made"); !strings.Contains(text, "Healthcheck") || strings.Contains(text, "vnd.docker") || strings.Contains(text, "docker_version") {
			t.Errorf("%s: %s", name, text)
		}
		d.Cleat("run", "--rm", "made", "test", "-e", "/made")
		d.Cleat("rm", "c")
		d.Cleat("image", "prune", "--all")
		d.NoRemains(name)
	}
}

func TestDockerSchema1_IsRefused(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	doc := `{"schemaVersion":1,"name":"old/box","tag":"1","architecture":"amd64","fsLayers":[{"blobSum":"` + digest.FromString("x").String() + `"}],"history":[{"v1Compatibility":"{}"}],"signatures":[]}`
	for _, mediaType := range []string{"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.docker.distribution.manifest.v1+json"} {
		r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write([]byte(doc))
			return true
		})
		_, stderr, code := d.Try("pull", r.Host+"/old/box:1")
		if code != 1 || !strings.Contains(stderr, "schema 1") || !strings.Contains(stderr, "old/box:1") || !strings.Contains(stderr, "pushed again") {
			t.Errorf("%s: %d, %s", mediaType, code, stderr)
		}
		d.NoRemains(mediaType)
	}
}
