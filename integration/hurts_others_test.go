package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestHurts12CreatesDoNotWaitForPulls has twenty pulls stand still in the middle of a layer, and makes,
// lists and removes containers meanwhile.
func TestHurts12CreatesDoNotWaitForPulls(t *testing.T) {
	const pulls = 20
	r := StartRegistry(t, RegistryOptions{})
	for i := range pulls {
		layer := tarOf(t, []file{{name: "f", body: fmt.Sprint("layer ", i), mode: 0o644}})
		r.skopeo("oci-archive:"+ociArchive(t, [][]byte{layer}, busyboxConfig(), nil), fmt.Sprintf("docker://%s/box%d:1", r.Host, i))
	}
	d := Start(t)
	d.Busybox()
	var waiting atomic.Int32
	release := make(chan struct{})
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			waiting.Add(1)
			select {
			case <-release:
			case <-req.Context().Done():
			}
		}
		return false
	})
	var all sync.WaitGroup
	for i := range pulls {
		all.Go(func() { d.Cleat("pull", "--quiet", fmt.Sprintf("%s/box%d:1", r.Host, i)) })
	}
	d.Eventually("every pull waits for its registry", func() error {
		if n := waiting.Load(); n < pulls {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	within(t, "run, list, exec and rm during the pulls", func() {
		d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
		if out := d.Cleat("exec", "c", "echo", "in"); out != "in" {
			t.Errorf("exec: %q", out)
		}
		d.Cleat("ps")
		d.Cleat("image", "ls")
		d.Cleat("rm", "--force", "c")
	})
	close(release)
	all.Wait()
	for i := range pulls {
		d.Cleat("image", "rm", fmt.Sprintf("%s/box%d:1", r.Host, i))
	}
}

// TestHurts15AContainerKeepsItsShimAndRuntime changes what a runtime's name stands for under a
// running container and its daemon. (Versions are negotiated: see the tests of foreign shims, and of our
// shim under containerd.)
func TestHurts15AContainerKeepsItsShimAndRuntime(t *testing.T) {
	bin := t.TempDir()
	put := func(name string, program []byte) string {
		t.Helper()
		path := filepath.Join(bin, name)
		must(t, os.WriteFile(path, program, 0o755))
		return path
	}
	shim, err := os.ReadFile(filepath.Join(binaries, "containerd-shim-cleat-v2"))
	must(t, err)
	first := put("containerd-shim-first-v2", shim)
	second := put("containerd-shim-second-v2", []byte("#!/bin/sh\nexit 9\n"))
	config := filepath.Join(bin, "config.toml")
	maps := func(to string) {
		t.Helper()
		must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\n[runtimes]\n\"io.containerd.mine.v2\" = %q\n", to), 0o600))
	}
	maps(first)
	d := Start(t, "--config", config)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "native", "busybox", "sh", "-c", trapping(3))
	d.ready("native")
	d.Cleat("run", "-d", "--name", "mapped", "--runtime", "io.containerd.mine.v2", "busybox", "sleep", "1000")
	shims := d.shims()

	maps(second)
	d.Restart()
	for id, was := range shims {
		d.Eventually(id+" is found again", func() error {
			if now := d.shims()[id]; now.Pid != was.Pid || now.State != was.State {
				return fmt.Errorf("%+v, was %+v", now, was)
			}
			return nil
		})
	}
	if _, stderr, code := d.Try("run", "--rm", "--runtime", "io.containerd.mine.v2", "busybox", "true"); code != 125 || !strings.Contains(stderr, "containerd-shim-second-v2") {
		t.Errorf("a new container by the new map: %d, %s", code, stderr)
	}
	if out := d.Cleat("exec", "mapped", "echo", "in"); out != "in" {
		t.Errorf("exec: %q", out)
	}

	killPid(t, shims["mapped"].Pid) // its clean-up needs the shim it was started with
	d.Eventually("the end of its shim is known", func() error {
		if s := d.ps("mapped").Status; s != "stopped" {
			return fmt.Errorf("it is %s", s)
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
