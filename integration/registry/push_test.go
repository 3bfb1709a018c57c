package registry

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestPush_PulledBySkopeo(t *testing.T) {
	t.Parallel()
	archive := harness.ToolArchives(t)["skopeo's OCI archive"]
	for kind, o := range map[string]harness.RegistryOptions{"plain": {}, "over TLS with a user": {TLS: true, User: harness.Alice}} {
		t.Run(kind, func(t *testing.T) {
			r := harness.StartRegistry(t, o)
			certs := t.TempDir()
			if o.TLS {
				certs = r.Trust()
			}
			d := StartFor(t, certs)
			var user []string
			if o.User != "" {
				user = []string{"--user", o.User}
			}
			d.Cleat("image", "import", "--name", "box", archive)
			want := strings.TrimSpace(d.Cleat("image", "ls", "--format", "json"))
			ref := r.Host + "/team/box:2"
			out := d.Cleat(append([]string{"push", ref, "box"}, user...)...)
			if got := r.Digest("team/box:2"); out != ref+"@"+got || !strings.Contains(want, got) {
				t.Errorf("pushed %q, the registry has %s, the daemon %s", out, got, want)
			}
			r.Skopeo("docker://"+ref, "oci:"+filepath.Join(t.TempDir(), "out")+":x")

			// A push to another repository of the registry sends nothing: pulled blobs are mounted.
			d.Cleat(append([]string{"pull", ref}, user...)...)
			d.Cleat("image", "rm", "box")
			d.Cleat("image", "rm", ref)
			d.Cleat(append([]string{"pull", ref}, user...)...)
			uploads := r.Uploads.Load()
			d.Cleat("image", "tag", ref, r.Host+"/other/box:3")
			d.Cleat(append([]string{"push", r.Host + "/other/box:3"}, user...)...)
			if n := r.Uploads.Load() - uploads; n != 0 {
				t.Errorf("%d mountable blobs were sent", n)
			}
			if a, b := r.Digest("other/box:3"), r.Digest("team/box:2"); a != b {
				t.Errorf("digests %s and %s", a, b)
			}
			if out := d.Cleat("image", "prune", "--all"); out != r.Host+"/other/box:3\n"+ref {
				t.Errorf("pruned %q", out)
			}
			d.NoRemains(kind)
		})
	}
}

func TestPush_WholeIndex(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/arm/v7")
	ref := r.Host + "/multi/box:1"
	if out := d.Cleat("pull", ref); out != ref+"@"+index {
		t.Errorf("%q", out)
	}
	if out := d.Cleat("run", "--rm", ref, "echo", "runs"); out != "runs" {
		t.Errorf("%q", out)
	}
	byDigest := r.Host + "/multi/box@" + index
	if out := d.Cleat("pull", r.Host+"/multi/box:other@"+index); out != byDigest {
		t.Errorf("%q", out)
	}
	for _, args := range [][]string{{r.Host + "/copy/box:1", "nosuch"}, {r.Host + "/no/such:1"}} {
		if _, stderr, code := d.Try(append([]string{"push"}, args...)...); code != 1 || !strings.Contains(stderr, "cleat image ls") {
			t.Errorf("push of a missing image: %d, %s", code, stderr)
		}
	}
	if _, stderr, code := d.Try("push", r.Host+"/copy/box:1", ref); code == 0 || !strings.Contains(stderr, "platform") {
		t.Errorf("push of an incomplete image: %d, %s", code, stderr)
	}
	d.Cleat("push", "--platform", "linux/amd64", r.Host+"/copy/box:amd64", ref)
	if _, stderr, code := d.Try("pull", "--platform", "linux/s390x", ref); code == 0 || !strings.Contains(stderr, "linux/arm64") {
		t.Errorf("pull for another platform: %d, %s", code, stderr)
	}
	d.Cleat("pull", "--platform", "linux/arm64", "--no-unpack", ref)
	d.Cleat("pull", "--all-platforms", ref)
	d.Cleat("push", r.Host+"/copy/box:1", ref)
	if got := r.Digest("copy/box:1"); got != index {
		t.Errorf("pushed %s, want %s", got, index)
	}
	r.Skopeo("docker://"+r.Host+"/copy/box:1", "oci:"+filepath.Join(t.TempDir(), "out")+":x")
}

// In a registry without a referrers API, such as Debian's, a document is found by its subject.
func TestPush_DocumentWithSubject(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	subject := r.Image("some/box", "1", harness.Amd64, harness.TarOf(t, harness.BusyboxFiles(t)))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: &subject}
	m.Config = r.Blob("some/box", "application/vnd.example.sbom", []byte("{}"))
	m.Layers = []ocispec.Descriptor{r.Blob("some/box", "text/plain", []byte("what is in it"))}
	sbom := r.Document("some/box", "sbom", ocispec.MediaTypeImageManifest, m)
	d.Cleat("pull", "--no-unpack", "--all-platforms", r.Host+"/some/box:sbom")
	d.Cleat("push", r.Host+"/copy/box:sbom", r.Host+"/some/box:sbom")
	req, err := http.NewRequest(http.MethodGet, "http://registry/v2/copy/box/manifests/"+strings.ReplaceAll(subject.Digest.String(), ":", "-"), nil)
	harness.Must(t, err)
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
	resp, err := r.Direct.Do(req)
	harness.Must(t, err)
	defer resp.Body.Close()
	var index ocispec.Index
	if err := json.NewDecoder(resp.Body).Decode(&index); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != sbom.Digest || index.Manifests[0].ArtifactType != "application/vnd.example.sbom" {
		t.Errorf("%+v", index.Manifests)
	}
	d.Cleat("image", "prune", "--all")
	d.NoRemains("a push of a referrer")
}
