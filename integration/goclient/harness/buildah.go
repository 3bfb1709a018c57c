package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BuildahImages lets buildah build a busybox image and push it to a registry, in Docker's and in OCI's format. It
// returns the references. The image's command prints "by buildah".
func BuildahImages(t *testing.T, registry string) (refs []string) {
	t.Helper()
	base := t.TempDir()
	policy := filepath.Join(base, "policy.json")
	Must(t, os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600))
	buildah := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("buildah", append([]string{"--root", filepath.Join(base, "root"), "--runroot", filepath.Join(base, "run"), "--storage-driver", "vfs"}, args...)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("buildah %q: %v: %s", args, err, errs.String())
		}
		return strings.TrimSpace(string(out))
	}
	name := buildah("from", "--signature-policy", policy, "--pull-never", "scratch")
	buildah("add", name, "/bin/busybox", "/bin/busybox")
	buildah("config", "--cmd", `["/bin/busybox", "echo", "by buildah"]`, name)
	buildah("commit", "--signature-policy", policy, "--rm", name, "localhost/built:1")
	for _, format := range []string{"v2s2", "oci"} {
		ref := registry + "/built/" + format + ":1"
		buildah("push", "--signature-policy", policy, "--tls-verify=false", "--format", format, "localhost/built:1", "docker://"+ref)
		refs = append(refs, ref)
	}
	return refs
}
