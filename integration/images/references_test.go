package images

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image/registry/registrytest"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestReferences lets each command find an image by everything that users copy from the output of cleat and of
// Docker.
func TestReferences(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	reg := fixture.StartFakeRegistry(t, registrytest.Quirk{})
	const config = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`
	desc := reg.Image("library/app", "1.0", config, harness.TarOf(t, harness.BusyboxFiles(t)))
	from := reg.Host + "/library/app:1.0"
	d.Cleat("pull", "--quiet", from)
	d.Cleat("image", "tag", from, "app:1.0")
	d.Cleat("image", "rm", from)
	var m ocispec.Manifest
	doc, _ := reg.Tagged("library/app", "1.0")
	harness.Must(t, json.Unmarshal(doc.Raw, &m))
	manifest, id := desc.Digest, m.Config.Digest
	refs := []string{
		"app:1.0", "library/app:1.0", "docker.io/app:1.0", "docker.io/library/app:1.0", "index.docker.io/library/app:1.0",
		manifest.String(), manifest.Encoded(), manifest.String()[:19], manifest.Encoded()[:12], manifest.Encoded()[:7],
		id.String(), id.Encoded(), id.String()[:19], id.Encoded()[:12],
		"app@" + manifest.String(), "library/app@" + manifest.String(), "docker.io/library/app@" + manifest.String(),
		"app:1.0@" + manifest.String(), "docker.io/library/app:1.0@" + manifest.String(),
		"app@" + id.String(), "app:1.0@" + id.String(),
	}
	for _, shown := range strings.Fields(d.Cleat("image", "ls")) { // everything that looks like a reference
		if strings.HasPrefix(shown, "sha256:") || strings.HasPrefix(shown, "docker.io/") {
			refs = append(refs, shown)
		}
	}
	mountpoint := t.TempDir()
	for _, ref := range refs {
		for _, command := range [][]string{
			{"run", "--rm", ref, "true"},
			{"run", "--detach", "--name", "made", ref, "sleep", "99"},
			{"commit", "made", "made:1"},
			{"rm", "--force", "made"},
			{"image", "inspect", ref},
			{"image", "usage", ref},
			{"image", "label", ref},
			{"image", "tag", ref, "other:1"},
			{"image", "export", "--output", filepath.Join(t.TempDir(), "out.tar"), ref},
			{"image", "convert", ref, "converted:1", "--gzip"},
			{"push", "--quiet", reg.Host + "/pushed/app:1", ref},
			{"image", "mount", ref, mountpoint},
			{"image", "unmount", mountpoint},
			{"image", "rm", "other:1", "made:1", "converted:1"},
		} {
			if out, errs, code := d.Try(command...); code != 0 {
				t.Errorf("%q: exit code %d: %s%s", command, code, out, errs)
			}
		}
		d.Cleat("image", "tag", ref, "kept:1")
		d.Cleat("image", "rm", "app:1.0")
		d.Cleat("image", "tag", "kept:1", "app:1.0")
		d.Cleat("image", "rm", "kept:1")
		if out, errs, code := d.Try("image", "rm", ref); code != 0 {
			t.Errorf("image rm %s: exit code %d: %s%s", ref, code, out, errs)
		}
		d.Cleat("pull", "--quiet", from)
		d.Cleat("image", "tag", from, "app:1.0")
		d.Cleat("image", "rm", from)
	}
}

// TestReferences_Ambiguous checks that nothing is selected if a reference matches several images or several names.
func TestReferences_Ambiguous(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	reg := fixture.StartFakeRegistry(t, registrytest.Quirk{})
	const config = `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":LAYERS}}`
	desc := reg.Image("a", "1", config, harness.TarOf(t, harness.BusyboxFiles(t)))
	d.Cleat("pull", "--quiet", reg.Host+"/a:1")
	d.Cleat("image", "tag", reg.Host+"/a:1", "one:1")
	d.Cleat("image", "tag", reg.Host+"/a:1", "one:2")
	short := desc.Digest.Encoded()[:12]
	d.Cleat("image", "inspect", short) // one image of three names
	for ref, want := range map[string]string{
		short: "several names", desc.Digest.String(): "several names", "one@" + desc.Digest.String(): "several names",
		"two@" + desc.Digest.String(): "not found", "ab": "not found", "sha256:": "not found", "one@" + short: "not found",
	} {
		if out, errs, code := d.Try("image", "rm", ref); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("image rm %s: exit code %d: %s%s", ref, code, out, errs)
		}
	}
	// A name has precedence over an equal id, and a tag selects one of several names.
	d.Cleat("image", "tag", "one:1", short)
	d.Cleat("image", "rm", short, "one:2@"+desc.Digest.String())
	if names := strings.Join(strings.Fields(d.Cleat("image", "ls", "--quiet")), " "); names != reg.Host+"/a:1 docker.io/library/one:1" {
		t.Errorf("left: %s", names)
	}
}
