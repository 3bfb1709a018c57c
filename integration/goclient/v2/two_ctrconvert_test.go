package goclient

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCtr_RepeatedConversion converts an image when every blob of the result exists: ctr reads the digests from the
// content writer, whose commit then returns ErrAlreadyExists.
func TestCtr_RepeatedConversion(t *testing.T) {
	f := start(t)
	ctr := filepath.Join(t.TempDir(), "ctr")
	if out, err := exec.Command("go", "build", "-o", ctr, "github.com/containerd/containerd/v2/cmd/ctr").CombinedOutput(); err != nil {
		t.Fatalf("build ctr: %v\n%s", err, out)
	}
	f.daemon.Cleat("--namespace", "tests", "image", "convert", "--gzip", imageName, "example.test/gzip:1")
	var digests []string
	for _, name := range []string{"example.test/one:1", "example.test/two:1"} {
		for _, step := range []struct{ args, shows string }{
			{"images convert --uncompress --oci example.test/gzip:1 " + name, "sha256:"},
			{"images check name==" + name, "complete"},
			{"run --rm " + name + " c /bin/cat /etc/layer", "two\n"},
		} {
			out, err := exec.Command(ctr, append([]string{"--address", f.daemon.Address, "--namespace", "tests"}, strings.Fields(step.args)...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), step.shows) {
				t.Fatalf("ctr %s: %v\n%s", step.args, err, out)
			}
		}
		img, err := f.client.GetImage(f.ctx, name)
		f.must(err)
		digests = append(digests, img.Target().Digest.String())
		ids, err := img.RootFS(f.ctx)
		if err != nil || len(ids) != 2 {
			t.Errorf("root file system of %s: %v, %v", name, ids, err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("the same conversion made %s", digests)
	}
}
