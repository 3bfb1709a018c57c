package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// StartFor starts a daemon with a directory of registry configurations.
func StartFor(t *testing.T, certs string) *harness.Daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.WriteFile(path, fmt.Appendf(nil, "version = 1\nregistry_config_path = %q\n", certs), 0o600))
	return harness.Start(t, "--config", path)
}

func TestPull_PushedBySkopeo(t *testing.T) {
	t.Parallel()
	archive := harness.ToolArchives(t)["skopeo's OCI archive"]
	for kind, o := range map[string]harness.RegistryOptions{
		"plain": {}, "with a user": {User: harness.Alice}, "over TLS": {TLS: true}, "over TLS with a user": {TLS: true, User: harness.Alice},
	} {
		t.Run(kind, func(t *testing.T) {
			r := harness.StartRegistry(t, o)
			r.Skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
			certs := t.TempDir()
			if o.TLS {
				certs = r.Trust()
			}
			d := StartFor(t, certs)
			ref := r.Host + "/some/box:1"
			args := []string{"pull", ref}
			if o.User != "" {
				if _, stderr, code := d.Try(args...); code == 0 || !strings.Contains(stderr, r.Host) || !strings.Contains(stderr, "log in") {
					t.Errorf("without a user: %d, %s", code, stderr)
				}
				args = append(args, "--user", o.User)
			}
			if out := d.Cleat(args...); out != ref+"@"+r.Digest("some/box:1") {
				t.Errorf("pulled %q, the registry has %s", out, r.Digest("some/box:1"))
			}
			if out := d.Cleat("run", "--rm", ref, "echo", "runs"); out != "runs" {
				t.Errorf("run: %q", out)
			}
			sent := r.Blobs.Load()
			d.Cleat(append(args, "--quiet")...)
			if again := r.Blobs.Load(); again != sent {
				t.Errorf("a second pull fetched %d blobs", again-sent)
			}
			if strings.Contains(d.Log(), "s3cret-pw") {
				t.Error("the password is in the daemon's log")
			}
			d.Cleat("image", "rm", ref)
			d.NoRemains(kind)
		})
	}
}
