package images

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestArchives_SeveralPlatforms(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, _ := withAttestation(r, t)
	d := harness.Start(t)
	want := r.Digest("at/box:1")
	dir := t.TempDir()
	part, whole := filepath.Join(dir, "part.tar"), filepath.Join(dir, "whole.tar")
	d.Cleat("pull", ref)
	if _, stderr, code := d.Try("image", "export", "--all-platforms", "-o", whole, ref); code != 1 || !strings.Contains(stderr, "linux/arm64") {
		t.Errorf("export of an incomplete image: %d, %s", code, stderr)
	}
	if _, stderr, code := d.Try("image", "export", "--all-platforms", "--platform", "linux/amd64", "-o", whole, ref); code != 1 || !strings.Contains(stderr, "exclude each other") {
		t.Errorf("one platform and all: %d, %s", code, stderr)
	}
	d.Cleat("image", "export", "-o", part, ref)
	d.Cleat("pull", "--all-platforms", ref)
	d.Cleat("image", "export", "--all-platforms", "-o", whole, ref)
	d.Cleat("image", "rm", ref)
	if _, stderr, code := d.Try("image", "import", "--all-platforms", part); code != 1 || !strings.Contains(stderr, "linux/arm64") {
		t.Errorf("import of an incomplete image: %d, %s", code, stderr)
	}
	d.NoRemains("an incomplete image")
	d.Eventually("nothing is left", func() error { return harness.Empty(d.Root+"/content/blobs/sha256", 1) })
	for _, args := range [][]string{{part}, {"--all-platforms", whole}} {
		for _, pack := range []string{"", "gzip", "zstd"} {
			path := args[len(args)-1]
			if pack != "" {
				harness.Tool(t, dir, pack, "-k", "-f", path)
				path += map[string]string{"gzip": ".gz", "zstd": ".zst"}[pack]
			}
			d.Cleat(append(append([]string{"image", "import"}, args[:len(args)-1]...), path)...)
			if got := d.DigestOf(ref); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
			if out := d.Cleat("run", "--rm", ref, "cat", "/only"); out != "0" {
				t.Errorf("%s: %q", path, out)
			}
			d.Cleat("image", "rm", ref)
		}
	}
	// The archive can be exported again, byte for byte.
	d.Cleat("image", "import", whole)
	again := filepath.Join(dir, "again.tar")
	d.Cleat("image", "export", "-o", again, ref)
	a, err := os.ReadFile(whole)
	harness.Must(t, err)
	b, err := os.ReadFile(again)
	harness.Must(t, err)
	if string(a) != string(b) {
		t.Error("the archives differ")
	}
	// Each platform is exported alone for other tools.
	one := filepath.Join(dir, "one.tar")
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		d.Cleat("image", "export", "--platform", platform, "-o", one, ref)
		layout := filepath.Join(t.TempDir(), "layout")
		harness.Tool(t, dir, "skopeo", "--insecure-policy", "copy", "oci-archive:"+one+":1", "oci:"+layout+":x")
		harness.Tool(t, dir, "skopeo", "--insecure-policy", "copy", "docker-archive:"+one, "dir:"+filepath.Join(t.TempDir(), "d"))
	}
	// The last one is for another machine, and complete.
	d.Cleat("image", "rm", ref)
	if _, stderr, code := d.Try("image", "import", one); code != 1 || !strings.Contains(stderr, "only for linux/arm64") || !strings.Contains(stderr, "--no-unpack") {
		t.Errorf("import of an image for another machine: %d, %s", code, stderr)
	}
	for _, flags := range [][]string{{"--all-platforms"}, {"--no-unpack"}, {"--platform", "linux/arm64"}} {
		d.Cleat(append(append([]string{"image", "import"}, flags...), one)...)
		d.Cleat("image", "rm", ref)
	}
}

func TestArchives_DockerLoadAndSave(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64")
	ref := r.Host + "/multi/box:1"
	d := harness.Start(t)
	d.Cleat("pull", "--all-platforms", ref)
	d.Cleat("image", "tag", ref, "second:2")
	d.Cleat("image", "convert", "--gzip", "--platform", "linux/amd64", ref, "third:3")
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tar")
	d.Cleat("image", "export", "-o", archive, ref, "second:2", "third:3")
	docker := harness.StartDockerd(t, d.Address)
	f, err := os.Open(archive)
	harness.Must(t, err)
	defer f.Close()
	docker.Call("POST", "/images/load?quiet=1", f)
	var shown []struct{ RepoTags []string }
	docker.Decode("GET", "/images/json", nil, &shown)
	text, err := json.Marshal(shown)
	harness.Must(t, err)
	for _, name := range []string{ref, "second:2", "third:3"} {
		if !strings.Contains(string(text), `"`+name+`"`) {
			t.Errorf("docker has %s, not %s", text, name)
		}
	}
	// The saved archive has the same image in Docker's layout.
	saved := filepath.Join(dir, "saved.tar")
	harness.Must(t, os.WriteFile(saved, docker.Call("GET", "/images/get?names=second:2&names=third:3", nil), 0o600))
	_, before, _ := d.ImageDocuments("second:2")
	d.Cleat("image", "rm", ref, "second:2", "third:3")
	for _, pack := range []string{"", "gzip", "zstd"} {
		path := saved
		if pack != "" {
			harness.Tool(t, dir, pack, "-k", "-f", path)
			path += map[string]string{"gzip": ".gz", "zstd": ".zst"}[pack]
		}
		d.Cleat("image", "import", path)
		m, cfg, _ := d.ImageDocuments("second:2")
		if len(m.Layers) != 2 || cfg.RootFS.DiffIDs[1] != before.RootFS.DiffIDs[1] || d.DigestOf("docker.io/library/third:3") != d.DigestOf("docker.io/library/second:2") {
			t.Errorf("%s: %+v, %+v", path, m, cfg)
		}
		if out := d.Cleat("run", "--rm", "third:3", "cat", "/only"); out != "0" {
			t.Errorf("%s: %q", path, out)
		}
		d.Cleat("image", "rm", "second:2", "third:3")
	}
	d.Cleat("image", "import", archive)
	if got := d.DigestOf(ref); got != index {
		t.Errorf("%s, want %s", got, index)
	}
}

// TestImport_DockerSaveSince25 imports archives of docker save since version 25: an OCI layout and a manifest.json.
// The index names images in annotations, and both documents refer to the same blobs.
func TestImport_DockerSaveSince25(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	m, _, name := d.ImageDocuments("busybox")
	dir := t.TempDir()
	d.Cleat("image", "export", "-o", filepath.Join(dir, "a.tar"), "busybox")
	harness.Tool(t, dir, "sh", "-c", "mkdir x && tar -C x -xf a.tar")
	doc := `[{"Config":"blobs/sha256/` + m.Config.Digest.Encoded() + `","RepoTags":["busybox:latest","other:1"],"Layers":["blobs/sha256/` + m.Layers[0].Digest.Encoded() +
		`"],"LayerSources":{"` + m.Layers[0].Digest.String() + `":{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":1,"digest":"` + m.Layers[0].Digest.String() + `"}}}]`
	harness.Must(t, os.WriteFile(filepath.Join(dir, "x", "manifest.json"), []byte(doc), 0o600))
	harness.Must(t, os.WriteFile(filepath.Join(dir, "x", "repositories"), []byte(`{"busybox":{"latest":"x"}}`), 0o600))
	harness.Tool(t, dir, "sh", "-c", "cd x && tar cf ../new.tar blobs index.json manifest.json oci-layout repositories")
	d.Cleat("image", "rm", "busybox")
	d.Cleat("image", "import", filepath.Join(dir, "new.tar"))
	if got := d.DigestOf("busybox"); got != name {
		t.Errorf("%s, want %s", got, name)
	}
	// Without the files of the layout the archive has the older form.
	harness.Tool(t, dir, "sh", "-c", "cd x && tar cf ../old.tar blobs manifest.json repositories")
	d.Cleat("image", "rm", "busybox")
	d.Cleat("image", "import", filepath.Join(dir, "old.tar"))
	for _, n := range []string{"docker.io/library/busybox:latest", "docker.io/library/other:1"} {
		if got := d.DigestOf(n); got != d.DigestOf("docker.io/library/other:1") {
			t.Errorf("%s is %s, its other name differs", n, got)
		}
		if out := d.Cleat("run", "--rm", n, "echo", "runs"); out != "runs" {
			t.Errorf("%s: %q", n, out)
		}
	}
}
