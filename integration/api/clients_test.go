package api

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// builtImages lets buildah build an image and push it to a registry in both of its formats. skopeo adds a copy with
// zstd layers. builtImages returns the references.
func builtImages(t *testing.T, r *harness.Registry, base string) (refs []string) {
	t.Helper()
	name := harness.Buildah(t, base, "from", "--pull-never", "scratch")
	root := harness.Buildah(t, base, "mount", name)
	harness.Tool(t, base, "tar", "-xC", root, "-f", writeFile(t, filepath.Join(base, "rootfs.tar"), harness.TarOf(t, harness.BusyboxFiles(t))))
	harness.Buildah(t, base, "umount", name)
	harness.Buildah(t, base, "config", "--env", "PATH=/bin", "--env", "MADE_BY=buildah", "--cmd", "/bin/sh", "--workingdir", "/data", name)
	harness.Buildah(t, base, "commit", "--rm", name, "localhost/built:1")
	for _, format := range []string{"v2s2", "oci"} {
		ref := r.Host + "/built/" + format + ":1"
		harness.Buildah(t, base, "push", "--tls-verify=false", "--format", format, "localhost/built:1", "docker://"+ref)
		refs = append(refs, ref)
	}
	ref := r.Host + "/built/zstd:1"
	harness.Tool(t, base, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-compress-format", "zstd", "--dest-compress",
		"docker://"+refs[1], "docker://"+ref)
	return append(refs, ref)
}

// TestForeignImages_EveryClient pulls images pushed by buildah and skopeo through every client on this machine, and
// runs them.
func TestForeignImages_EveryClient(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	base := t.TempDir()
	refs := builtImages(t, r, base)
	d := harness.Start(t)
	k := harness.StartDockerd(t, d.Address)
	const script = "echo $MADE_BY in $PWD"
	const want = "buildah in /data"
	for i, ref := range refs {
		t.Run(strings.TrimPrefix(ref, r.Host+"/"), func(t *testing.T) {
			path, tag, _ := strings.Cut(strings.TrimPrefix(ref, r.Host+"/"), ":")
			if out := d.Cleat("pull", ref); out != ref+"@"+r.Digest(path+":"+tag) {
				t.Errorf("cleat pulled %s, the registry has %s", out, r.Digest(path+":"+tag))
			}
			if out := d.Cleat("run", "--rm", ref, "sh", "-c", script); out != want {
				t.Errorf("cleat run: %q", out)
			}
			ctr := func(args ...string) {
				t.Helper()
				out, err := exec.CommandContext(t.Context(), "ctr", append([]string{"--address", d.Address, "--namespace", "ctr"}, args...)...).CombinedOutput()
				if err != nil {
					t.Errorf("ctr %q: %v\n%s", args, err, out)
				}
			}
			ctr("images", "pull", "--plain-http", ref)
			dir, open := harness.Gate(t, 1)
			run := append([]string{"--namespace", "ctr", "run", "--rm", "--fifo-dir", t.TempDir()}, harness.GateMount(dir)...)
			if out, stderr, code := harness.CtrGated(t, d.Address, open, want+"\n", "", append(run, ref, fmt.Sprint("c", i), "sh", "-c", script+harness.AtGate)...); out != want+"\n" || code != 0 {
				t.Errorf("ctr run: %q, %q, code %d", out, stderr, code)
			}
			ctr("images", "rm", "--sync", ref)
			if !strings.Contains(ref, "zstd") { // this dockerd unpacks by itself, and does not support zstd
				k.Call("POST", "/images/create?fromImage="+url.QueryEscape(r.Host+"/"+path)+"&tag="+tag, nil)
				k.Call("POST", "/images/"+ref+"/tag?repo=bb", nil)
				k.Create("cc", script, nil)
				if code := k.Wait("cc"); code != 0 {
					t.Errorf("dockerd: code %d", code)
				}
				if out, _ := k.Logs("cc"); out != want+"\n" {
					t.Errorf("dockerd: %q", out)
				}
				k.Call("DELETE", "/containers/cc", nil)
			}
			again := r.Host + "/again/" + filepath.Base(path) + ":1"
			d.Cleat("image", "tag", ref, again)
			d.Cleat("push", again)
			if got, had := r.Digest("again/"+filepath.Base(path)+":1"), r.Digest(path+":"+tag); got != had {
				t.Errorf("pushed %s, pulled %s", got, had)
			}
			harness.Buildah(t, base, "pull", "--tls-verify=false", "docker://"+again)
			harness.Tool(t, base, "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+again, "oci:"+filepath.Join(t.TempDir(), "oci")+":x")
			d.Cleat("image", "rm", ref, again)
		})
	}
}

// writeFile writes a file and returns its path.
func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	harness.Must(t, os.WriteFile(path, data, 0o600))
	return path
}
