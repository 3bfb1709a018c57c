package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// TestContainer_KeepsShimAndRuntime maps the name of a runtime to another shim while a container and its daemon run.
// (The tests of foreign shims, and of cleat's shim under containerd, cover the negotiation of versions.)
func TestContainer_KeepsShimAndRuntime(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	put := func(name string, program []byte) string {
		t.Helper()
		path := filepath.Join(bin, name)
		harness.Must(t, os.WriteFile(path, program, 0o755))
		return path
	}
	shim, err := os.ReadFile(harness.Binary("containerd-shim-cleat-v2"))
	harness.Must(t, err)
	first := put("containerd-shim-first-v2", shim)
	second := put("containerd-shim-second-v2", []byte("#!/bin/sh\nexit 9\n"))
	config := filepath.Join(bin, "config.toml")
	maps := func(to string) {
		t.Helper()
		harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\n[runtimes]\n\"io.containerd.mine.v2\" = %q\n", to), 0o600))
	}
	maps(first)
	d := harness.Start(t, "--config", config)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "native", "busybox", "sh", "-c", harness.Trapping(3))
	d.Ready("native")
	d.Cleat("run", "-d", "--name", "mapped", "--runtime", "io.containerd.mine.v2", "busybox", "sleep", "1000")
	shims := d.Shims()

	maps(second)
	d.Restart()
	for id, was := range shims {
		d.Eventually(id+" is adopted", func() error {
			if now := d.Shims()[id]; now.Pid != was.Pid || now.State != was.State {
				return fmt.Errorf("%+v, before %+v", now, was)
			}
			return nil
		})
	}
	if _, stderr, code := d.Try("run", "--rm", "--runtime", "io.containerd.mine.v2", "busybox", "true"); code != 125 || !strings.Contains(stderr, "containerd-shim-second-v2") {
		t.Errorf("a container with the new map: %d, %s", code, stderr)
	}
	if out := d.Cleat("exec", "mapped", "echo", "in"); out != "in" {
		t.Errorf("exec: %q", out)
	}

	harness.KillPid(t, shims["mapped"].Pid) // its clean-up needs the shim that started it
	d.Eventually("the end of the shim is noticed", func() error {
		if s := d.Ps("mapped").Status; s != "stopped" {
			return fmt.Errorf("status %s", s)
		}
		return nil
	})
	d.Cleat("rm", "mapped")
	d.Cleat("stop", "native")
	if got := d.Cleat("wait", "native"); got != "3" {
		t.Errorf("code %s", got)
	}
	d.Cleat("rm", "native")
}
