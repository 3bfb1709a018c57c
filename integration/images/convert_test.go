package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

// content reads a blob of the daemon's store.
func content(d *harness.Daemon, of string, into any) {
	d.T.Helper()
	out, stderr, err := d.Ctr("content", "get", of)
	if err != nil {
		d.T.Fatalf("%s: %v, %s", of, err, stderr)
	}
	if raw, ok := into.(*string); ok {
		*raw = out
		return
	}
	harness.Must(d.T, json.Unmarshal([]byte(out), into))
}

// withAttestation puts an index of the test image for two platforms and an attestation of one of them into the
// registry. It returns the reference and the digest of the attestation.
func withAttestation(r *harness.Registry, t *testing.T) (ref, statement string) {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: map[string]string{"of": "index"}}
	for i, arch := range []string{"amd64", "arm64"} {
		p := ocispec.Platform{OS: "linux", Architecture: arch}
		desc := r.Image("at/box", "", p, harness.TarOf(t, harness.BusyboxFiles(t)), harness.TarOf(t, []harness.File{{Name: "only", Mode: 0o644, Body: fmt.Sprint(i)}}))
		desc.Platform = &p
		desc.Annotations = map[string]string{"of": arch}
		index.Manifests = append(index.Manifests, desc)
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = r.Blob("at/box", ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["`+digest.FromString("{}").String()+`"]}}`))
	m.Layers = []ocispec.Descriptor{r.Blob("at/box", "application/vnd.in-toto+json", []byte("{}"))}
	at := r.Document("at/box", "", ocispec.MediaTypeImageManifest, m)
	at.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	at.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.Manifests[0].Digest.String()}
	index.Manifests = append(index.Manifests, at)
	r.Document("at/box", "1", ocispec.MediaTypeImageIndex, index)
	return r.Host + "/at/box:1", at.Digest.String()
}

func TestConvert_RoundTrip(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, statement := withAttestation(r, t)
	d := harness.Start(t)
	d.Cleat("pull", "--all-platforms", ref)
	var before ocispec.Index
	content(d, r.Digest("at/box:1"), &before)
	for _, c := range []struct {
		args            []string
		index, manifest string
		config, layer   string
	}{
		{[]string{"--gzip"}, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip},
		{[]string{"--zstd", "--all-platforms"}, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerZstd},
		{[]string{"--gzip", "--compression-level", "1", "--docker"}, harness.DockerList, harness.DockerManifest, harness.DockerConfig, harness.DockerLayer},
		{[]string{"--docker"}, harness.DockerList, harness.DockerManifest, harness.DockerConfig, strings.TrimSuffix(harness.DockerLayer, ".gzip")},
	} {
		d.Cleat(append([]string{"image", "convert", ref, "to"}, c.args...)...)
		name := d.DigestOf("to")
		var index ocispec.Index
		content(d, name, &index)
		if index.MediaType != c.index || len(index.Manifests) != 3 || index.Annotations["of"] != "index" {
			t.Errorf("%q: %+v", c.args, index)
		}
		if at := index.Manifests[2]; at.Digest.String() != statement || at.Annotations["vnd.docker.reference.digest"] != index.Manifests[0].Digest.String() {
			t.Errorf("%q: attestation %+v", c.args, at)
		}
		for i, desc := range index.Manifests[:2] {
			var m, was ocispec.Manifest
			content(d, desc.Digest.String(), &m)
			content(d, before.Manifests[i].Digest.String(), &was)
			if desc.MediaType != c.manifest || m.MediaType != c.manifest || m.Config.MediaType != c.config || m.Layers[1].MediaType != c.layer ||
				desc.Platform.Architecture != before.Manifests[i].Platform.Architecture || desc.Annotations["of"] == "" {
				t.Errorf("%q: %+v: %+v", c.args, desc, m)
			}
			if m.Config.Digest != was.Config.Digest {
				t.Errorf("%q: the configuration changed", c.args)
			}
		}
		if out := d.Cleat("run", "--rm", "to", "cat", "/only"); out != "0" {
			t.Errorf("%q: %q", c.args, out)
		}
		// The same conversion again, and back.
		d.Cleat(append([]string{"image", "convert", ref, "again"}, c.args...)...)
		d.Cleat("image", "convert", "--oci", "--uncompressed", "to", "back")
		if again, back := d.DigestOf("again"), d.DigestOf("back"); again != name {
			t.Errorf("%q: first %s, then %s", c.args, name, again)
		} else if second := converted(d, "back"); back != second {
			t.Errorf("%q: converted back to %s, and again to %s", c.args, back, second)
		}
		d.Cleat("push", r.Host+"/copy/box:1", "to")
		if got := r.Digest("copy/box:1"); got != name {
			t.Errorf("%q: pushed %s, want %s", c.args, got, name)
		}
		r.Skopeo("docker://"+r.Host+"/copy/box:1", "dir:"+filepath.Join(t.TempDir(), "out"))
		d.Cleat("image", "rm", "to", "again", "back")
	}
}

// converted returns the parts of an image without compression after its conversion to OCI media types.
func converted(d *harness.Daemon, name string) string {
	d.Cleat("image", "convert", "--oci", "--uncompressed", name, "twice")
	defer d.Cleat("image", "rm", "twice")
	return d.DigestOf("twice")
}

func TestConvert_PartOfIndex(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, statement := withAttestation(r, t)
	d := harness.Start(t)
	d.Cleat("pull", ref)
	d.Cleat("image", "convert", "--zstd", ref, "to")
	var before, index ocispec.Index
	content(d, r.Digest("at/box:1"), &before)
	content(d, d.DigestOf("to"), &index)
	if index.Manifests[0].Digest == before.Manifests[0].Digest || index.Manifests[1].Digest != before.Manifests[1].Digest || index.Manifests[2].Digest.String() != statement {
		t.Errorf("%+v", index)
	}
	d.Cleat("image", "convert", "--zstd", "--platform", "linux/amd64", ref, "one")
	if got := d.DigestOf("one"); got != index.Manifests[0].Digest.String() {
		t.Errorf("%s, want %s", got, index.Manifests[0].Digest)
	}
	if out := d.Cleat("run", "--rm", "one", "cat", "/only"); out != "0" {
		t.Errorf("%q", out)
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"all":            {[]string{"--zstd", "--all-platforms", ref, "x"}, "not"},
		"other platform": {[]string{"--zstd", "--platform", "linux/arm64", ref, "x"}, "platform"},
		"docker's zstd":  {[]string{"--zstd", "--docker", ref, "x"}, "gzip"},
		"zstd kept":      {[]string{"--docker", "one", "x"}, "gzip"},
		"two kinds":      {[]string{"--zstd", "--gzip", ref, "x"}, "--gzip and --zstd"},
		"two formats":    {[]string{"--oci", "--docker", ref, "x"}, "--oci and --docker"},
		"level alone":    {[]string{"--compression-level", "3", ref, "x"}, "which compression"},
		"level":          {[]string{"--zstd", "--compression-level", "23", ref, "x"}, "1 to 22"},
		"both":           {[]string{"--platform", "linux/amd64", "--all-platforms", ref, "x"}, "exclude each other"},
		"no image":       {[]string{"--gzip", "nosuch", "x"}, "hint:"},
		"no name":        {[]string{"--gzip", ref, "A//x"}, "hint:"},
	} {
		_, stderr, code := d.Try(append([]string{"image", "convert"}, c.args...)...)
		if code != 1 || !strings.Contains(stderr, c.says) || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
	}
	if list := strings.Fields(d.Cleat("image", "ls", "-q")); len(list) != 3 {
		t.Errorf("images %q", list)
	}
}

func TestConvert_CancelledAtAnyMoment_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Cleat("image", "import", "--no-unpack", "--name", "box", harness.OCIArchive(t, harness.LayersOf(t, 4, 12<<20), harness.BusyboxConfig(), nil))
	before := objects(d)
	d.SweepWrites(harness.Size(10, 60), []string{d.Root}, func(i int, at *harness.Interruption) (done bool) {
		made := 0
		cmd := d.Command("image", "convert", "--gzip", "box", "to")
		sig := []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}[i%2]
		at.Run(cmd, harness.Signal(cmd, sig))
		_ = d.Ended(cmd, sig) // cancelled, or complete
		d.Eventually("nothing is left", func() error {
			made += removed(d, "to") // the last step may have been in progress
			if got := objects(d); got != before {
				return errors.New(got + ", before: " + before)
			}
			return harness.Empty(filepath.Join(d.Root, "content", "ingest"), 1)
		})
		return made > 0
	})
}

func TestConvert_DaemonKilled_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Cleat("image", "import", "--no-unpack", "--name", "box", harness.OCIArchive(t, harness.LayersOf(t, 4, 12<<20), harness.BusyboxConfig(), nil))
	before := objects(d)
	d.Eventually("the daemon dies before the conversion has ended", func() error {
		cmd := d.Command("image", "convert", "--gzip", "--compression-level", "9", "box", "to")
		harness.Must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		d.Eventually("the conversion has begun", func() error {
			if len(ended) > 0 {
				return nil
			}
			return ingests(d)
		})
		d.Kill9()
		err := <-ended
		d.Begin()
		if removed(d, "to") > 0 { // whether or not the client received the response
			return errors.New("the conversion ended first")
		}
		if err == nil {
			t.Error("a completed conversion is missing")
		}
		return nil
	})
	if err := harness.Empty(filepath.Join(d.Root, "content", "ingest"), 1); err != nil {
		t.Error(err)
	}
	d.Cleat("gc")
	if got := objects(d); got != before {
		t.Errorf("%s, before: %s", got, before)
	}
}
