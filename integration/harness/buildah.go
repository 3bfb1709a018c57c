package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Buildah runs buildah with a store below base and returns its trimmed output.
func Buildah(t *testing.T, base string, args ...string) string {
	t.Helper()
	policy := filepath.Join(base, "policy.json")
	Must(t, os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600))
	argv := []string{"--root", filepath.Join(base, "root"), "--runroot", filepath.Join(base, "run"), "--storage-driver", "vfs"}
	argv = append(argv, args[0])
	switch args[0] {
	case "from", "commit", "push", "pull":
		argv = append(argv, "--signature-policy", policy)
	}
	cmd := exec.Command("buildah", append(argv, args[1:]...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buildah %q: %v: %s%s", args, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// BuildahImages builds a busybox with buildah and pushes it to a registry, in Docker's format and in OCI's. It
// returns the references. The image's command prints "by buildah".
func BuildahImages(t *testing.T, registry string) (refs []string) {
	t.Helper()
	base := t.TempDir()
	buildah := func(args ...string) string {
		t.Helper()
		return Buildah(t, base, args...)
	}
	name := buildah("from", "--pull-never", "scratch")
	buildah("add", name, "/bin/busybox", "/bin/busybox")
	buildah("config", "--cmd", `["/bin/busybox", "echo", "by buildah"]`, name)
	buildah("commit", "--rm", name, "localhost/built:1")
	for _, format := range []string{"v2s2", "oci"} {
		ref := registry + "/built/" + format + ":1"
		buildah("push", "--tls-verify=false", "--format", format, "localhost/built:1", "docker://"+ref)
		refs = append(refs, ref)
	}
	return refs
}
