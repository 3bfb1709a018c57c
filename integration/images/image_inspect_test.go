package images

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

// space is an object of `cleat image usage`.
type space struct{ Size, Unique, Shared int64 }

type usage struct {
	Name, Digest string
	Compressed   space
	Unpacked     map[string]space
}

func usageOf(d *harness.Daemon, names ...string) map[string]usage {
	d.T.Helper()
	var list []usage
	harness.Must(d.T, json.Unmarshal([]byte(d.Cleat(append([]string{"image", "usage", "--format", "json"}, names...)...)), &list))
	out := make(map[string]usage)
	for _, u := range list {
		out[u.Name] = u
	}
	return out
}

func TestImageUsage(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	base, one, two := harness.TarOf(t, harness.BusyboxFiles(t)), harness.Noise(t, "one", 1<<20), harness.Noise(t, "two", 2<<20)
	d.Cleat("image", "import", "--name", "one", harness.OCIArchive(t, [][]byte{base, one}, harness.BusyboxConfig(), nil))
	d.Cleat("image", "import", "--no-unpack", "--name", "two", harness.OCIArchive(t, [][]byte{base, two}, harness.BusyboxConfig(), nil))
	const nameOne, nameTwo, nameAgain = "docker.io/library/one:latest", "docker.io/library/two:latest", "docker.io/library/again:1"
	u := usageOf(d)
	documents := func(u usage, layer []byte) int64 { return u.Compressed.Unique - int64(len(layer)) }
	for name, layer := range map[string][]byte{nameOne: one, nameTwo: two} {
		got := u[name]
		if got.Compressed.Shared != int64(len(base)) || documents(got, layer) <= 0 || documents(got, layer) > 4096 || got.Compressed.Size != got.Compressed.Shared+got.Compressed.Unique {
			t.Errorf("%s: %+v; the base has %d, the layer %d", name, got.Compressed, len(base), len(layer))
		}
	}
	if got := u[nameOne].Unpacked["overlayfs"]; len(u[nameTwo].Unpacked) != 1 || got.Unique < 1<<20 || got.Unique > 2<<20 || got.Shared < 1<<20 || got.Size != got.Unique+got.Shared {
		t.Errorf("%+v, %+v", u[nameOne].Unpacked, u[nameTwo].Unpacked)
	}
	// Another name does not change the usage. Another snapshotter has its own, and each of its layers is a full copy.
	d.Cleat("image", "tag", "one", "again:1")
	d.Cleat("run", "--rm", "--snapshotter", "native", "two", "true")
	u = usageOf(d, "one", "again:1", "two")
	if u[nameOne].Compressed != u[nameAgain].Compressed || documents(u[nameOne], one) > 4096 || len(u) != 3 {
		t.Errorf("%+v", u)
	}
	if got := u[nameTwo].Unpacked; got["native"].Unique < 4_000_000 || got["native"].Shared == 0 || got["overlayfs"].Unique != 0 {
		t.Errorf("%+v", got)
	}
	d.Cleat("image", "rm", "one")
	d.Cleat("image", "rm", "again:1")
	if got := usageOf(d)[nameTwo]; got.Compressed.Shared != 0 || got.Compressed.Unique < int64(len(base)+len(two)) {
		t.Errorf("alone: %+v", got)
	}
	if out := d.Cleat("image", "usage"); !strings.Contains(out, "UNPACKED") || !strings.Contains(out, "native") {
		t.Errorf("%s", out)
	}
	if _, stderr, code := d.Try("image", "usage", "nosuch"); code != 1 || !strings.Contains(stderr, "hint:") {
		t.Errorf("%d, %s", code, stderr)
	}
}

func TestImage_LabelsAndNames(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("image", "tag", "busybox", "other:1")
	d.Cleat("image", "label", "busybox", "a=1", "b.c/d=x=y")
	if out := d.Cleat("image", "label", "--format", "json", "busybox"); !strings.Contains(out, `"a": "1"`) || !strings.Contains(out, `"b.c/d": "x=y"`) {
		t.Errorf("%s", out)
	}
	d.Cleat("image", "label", "busybox", "a=")
	if out := d.Cleat("image", "label", "--quiet", "busybox"); out != "b.c/d" {
		t.Errorf("%q", out)
	}
	const full = "docker.io/library/busybox:latest"
	for filter, want := range map[string]string{
		`labels."b.c/d"=="x=y"`: full, `labels."b.c/d"`: full, `labels.a`: "", `name~=other`: "docker.io/library/other:1",
	} {
		if out := d.Cleat("image", "ls", "--quiet", "--filter", filter); out != want {
			t.Errorf("%s: %q, want %q", filter, out, want)
		}
	}
	// A label belongs to the name, and stays when the name is moved to another image.
	if out := d.Cleat("image", "label", "--quiet", "other:1"); out != "" {
		t.Errorf("%q", out)
	}
	d.Cleat("image", "tag", "other:1", "busybox")
	if out := d.Cleat("image", "label", "--quiet", "busybox"); out != "b.c/d" {
		t.Errorf("%q", out)
	}
	for _, args := range [][]string{{"busybox", "x"}, {"busybox", "=x"}, {"nosuch", "a=b"}, {"busybox", strings.Repeat("k", 5000) + "=v"}} {
		if _, stderr, code := d.Try(append([]string{"image", "label"}, args...)...); code != 1 || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%.20q: %d, %s", args, code, stderr)
		}
	}
	// Both names are listed, with the full digest. The digest alone is ambiguous and removes none of them.
	digest := d.DigestOf("busybox")
	if out := d.Cleat("image", "ls", "--digests"); strings.Count(out, digest) != 2 {
		t.Errorf("%s", out)
	}
	if _, stderr, code := d.Try("image", "rm", digest); code != 1 || !strings.Contains(stderr, "other:1") || !strings.Contains(stderr, "busybox:latest") {
		t.Errorf("%d, %s", code, stderr)
	}
	d.Cleat("image", "rm", "other:1")
	d.Cleat("image", "rm", digest)
	d.NoRemains("labels")
}

func TestReferrers_RegistryWithoutAPI(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	subject := r.Image("some/box", "1", harness.Amd64, harness.TarOf(t, harness.BusyboxFiles(t)))
	d := harness.Start(t)
	ref := r.Host + "/some/box:1"
	args := []string{"image", "referrers", ref}
	if out := d.Cleat(append(args, "--quiet")...); out != "" {
		t.Errorf("%q", out)
	}
	var index ocispec.Index
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	var want []string
	for _, kind := range []string{"application/vnd.example.signature", "application/vnd.example.parts"} {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind, Subject: &subject}
		m.Config = r.Blob("some/box", ocispec.MediaTypeEmptyJSON, []byte("{}"))
		m.Layers = []ocispec.Descriptor{m.Config}
		desc := r.Document("some/box", "", ocispec.MediaTypeImageManifest, m)
		desc.ArtifactType, desc.Annotations = kind, map[string]string{"by": "us"}
		index.Manifests = append(index.Manifests, desc)
		want = append(want, desc.Digest.String())
	}
	r.Document("some/box", strings.Replace(subject.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex, index)
	if got := strings.Fields(d.Cleat(append(args, "--quiet")...)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if out := d.Cleat(append(args, "--artifact-type", "application/vnd.example.parts", "--format", "json")...); strings.Contains(out, "signature") || !strings.Contains(out, want[1]) || !strings.Contains(out, `"by": "us"`) {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{{r.Host + "/some/box:none"}, {"a//b"}} {
		if _, stderr, code := d.Try(append([]string{"image", "referrers"}, args...)...); code != 1 || !strings.Contains(stderr, "hint:") {
			t.Errorf("%q: %d, %s", args, code, stderr)
		}
	}
	d.NoRemains("referrers")
}

// A command whose output could not be written fails.
func TestOutput_NotWritable_Fails(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	harness.Must(t, err)
	defer func() { harness.Must(t, full.Close()) }()
	d.Cleat("run", "--detach", "--name", "c", "busybox", "true")
	d.Cleat("image", "tag", "busybox", "other")
	for _, args := range [][]string{
		{"image", "ls"}, {"image", "tag", "busybox", "third"}, {"image", "rm", "other"}, {"wait", "c"}, {"rm", "c"}, {"image", "prune", "--all"},
	} {
		cmd := d.Command(args...)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &said
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "write output") {
			t.Errorf("%q: %v, %s", args, err, said.String())
		}
	}
}
