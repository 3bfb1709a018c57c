package images

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestExportImport_KeepsDigests(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64")
	ref := r.Host + "/multi/box:1"
	d := harness.Start(t)
	d.Cleat("pull", "--all-platforms", ref)
	d.Cleat("image", "tag", ref, "second:2")
	dir := t.TempDir()
	file, piped, single := filepath.Join(dir, "a.tar"), filepath.Join(dir, "b.tar"), filepath.Join(dir, "c.tar")
	d.Cleat("image", "export", "--output", file, ref, "second:2")
	d.Cleat("image", "export", "--platform", "linux/amd64", "-o", single, "second:2")
	cmd := d.Command("image", "export", ref, "second:2")
	out, err := cmd.Output()
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(piped, out, 0o600))
	first, err := os.ReadFile(file)
	harness.Must(t, err)
	if !bytes.Equal(first, out) {
		t.Errorf("%d bytes in a file, %d in a pipe", len(first), len(out))
	}
	listed, err := exec.Command("tar", "-tf", file).Output()
	harness.Must(t, err)
	names := strings.Fields(string(listed))
	for _, dir := range []string{"blobs/", "blobs/sha256/"} { // a directory precedes its contents
		if !slices.Contains(names, dir) ||
			slices.Index(names, dir) > slices.IndexFunc(names, func(n string) bool { return n != dir && strings.HasPrefix(n, dir) }) {
			t.Errorf("no entry %s before its files in %v", dir, names)
		}
	}
	d.Cleat("image", "prune", "--all")
	d.NoRemains("export")
	for _, path := range []string{file, piped} {
		d.Cleat("image", "import", path)
		images := d.Cleat("image", "ls", "--format", "json")
		if strings.Count(images, index) != 2 || !strings.Contains(images, ref) || !strings.Contains(images, "docker.io/library/second:2") ||
			!strings.Contains(images, "linux/arm64") {
			t.Errorf("want %s twice: %s", index, images)
		}
		if out := d.Cleat("run", "--rm", "second:2", "echo", "runs"); out != "runs" {
			t.Errorf("%q", out)
		}
		d.Cleat("image", "prune", "--all")
	}
	// Other programs read it, as both kinds of archive.
	harness.Tool(t, dir, "skopeo", "--insecure-policy", "copy", "oci-archive:"+single+":2", "oci:"+filepath.Join(dir, "o1")+":x")
	harness.Tool(t, dir, "skopeo", "--insecure-policy", "copy", "docker-archive:"+single, "oci:"+filepath.Join(dir, "o2")+":x")
	harness.Tool(t, dir, "ctr", "--address", d.Address, "--namespace", "default", "images", "import", "--no-unpack", "--all-platforms", file)
	if got, err := exec.Command("ctr", "--address", d.Address, "--namespace", "default", "images", "ls").CombinedOutput(); err != nil || !strings.Contains(string(got), index) {
		t.Errorf("%v: %s", err, got)
	}
	d.Cleat("image", "prune", "--all")
}

func TestExport_Fails(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	path := filepath.Join(t.TempDir(), "x.tar")
	for name, args := range map[string][]string{
		"no such image":     {"--output", path, "nosuch"},
		"no such platform":  {"--output", path, "--platform", "linux/s390x", "busybox"},
		"no such directory": {"--output", "/no/such/place", "busybox"},
	} {
		if _, stderr, code := d.Try(append([]string{"image", "export"}, args...)...); code != 1 || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: a partial archive is left", name)
		}
		d.NoRemains(name)
	}
	// Existing targets: an older, longer archive, and a device that cannot be written.
	older := strings.Repeat("older", 4<<20)
	harness.Must(t, os.WriteFile(path, []byte(older), 0o600))
	if _, _, code := d.Try("image", "export", "--output", path, "nosuch"); code != 1 {
		t.Error("export of a missing image succeeded")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != older {
		t.Errorf("older archive after an invalid name: %d bytes, %v", len(got), err)
	}
	d.Cleat("image", "export", "--output", path, "busybox")
	want, err := d.Command("image", "export", "busybox").Output()
	harness.Must(t, err)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("export over an older archive: %d bytes, want %d, %v", len(got), len(want), err)
	}
	device := filepath.Join(t.TempDir(), "full")
	harness.Must(t, unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))))
	if _, stderr, code := d.Try("image", "export", "--output", device, "busybox"); code != 1 || !strings.Contains(stderr, "no space left") {
		t.Errorf("%d, %s", code, stderr)
	}
	harness.Must(t, harness.Exists(device)())
	// The reader leaves in the middle.
	cmd := d.Command("image", "export", "busybox")
	pipe, err := cmd.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	_, err = pipe.Read(make([]byte, 100))
	harness.Must(t, err)
	harness.Must(t, pipe.Close())
	if err := cmd.Wait(); err == nil {
		t.Error("export without a reader succeeded")
	}
	d.NoRemains("an export without a reader")
}
