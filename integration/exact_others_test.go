package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/treecmp"
)

// byUmoci unpacks an image in an archive with skopeo and umoci.
func byUmoci(t *testing.T, source string) string {
	t.Helper()
	base := t.TempDir()
	layout := filepath.Join(base, "layout") + ":v"
	runTool(t, "skopeo", "copy", source, "oci:"+layout)
	runTool(t, "umoci", "unpack", "--image", layout, filepath.Join(base, "unpacked"))
	return filepath.Join(base, "unpacked", "rootfs")
}

// buildah runs buildah with its own store.
func buildah(t *testing.T, base string, args ...string) string {
	t.Helper()
	policy := filepath.Join(base, "policy.json")
	must(t, os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600))
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

func TestUnpack_BuildahImages_EqualsOtherTools(t *testing.T) {
	base := t.TempDir()
	from := "scratch"
	for i, script := range layerScripts {
		name := buildah(t, base, "from", "--pull-never", from)
		root := buildah(t, base, "mount", name)
		shell(t, "cd "+root+"\n"+script)
		if i == 0 {
			must(t, unix.Setxattr(root+"/etc", "user.note", []byte("text"), 0))
		}
		buildah(t, base, "umount", name)
		from = fmt.Sprint("localhost/layer:", i)
		buildah(t, base, "commit", "--rm", name, from)
	}
	d := Start(t)
	for _, format := range []string{"oci-archive", "docker-archive"} {
		path := filepath.Join(base, format+".tar")
		buildah(t, base, "push", from, format+":"+path+":docker.io/library/exact:latest")
		want := byUmoci(t, format+":"+path)
		for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
			t.Run(format+" on "+snapshotter, func(t *testing.T) {
				d.unpacked(t, path, snapshotter, len(layerScripts), func(got string) { treecmp.Compare(t, got, want) })
			})
		}
	}
}

// debian creates a minimal Debian with debootstrap, from the package source of this machine.
func debian(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(SUITE)", "Created-By: Packages").Output()
	must(t, err)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 || strings.Contains(f[1], "-") {
			continue // updates of the release, not the release itself
		}
		root := filepath.Join(t.TempDir(), "debian")
		runTool(t, "debootstrap", "--variant=minbase", f[1], root, f[0])
		return root
	}
	t.Fatalf("no release in apt's output: %s", out)
	return ""
}

// debianChanges changes the Debian in a container, for a second layer.
const debianChanges = `set -e
rm -r /usr/share/doc /var/cache/apt; mkdir /var/cache/apt; echo x > /var/cache/apt/new
mv /etc/passwd /etc/passwd.old; cp -p /etc/passwd.old /etc/passwd; ln /etc/passwd /etc/also
ln -s /nowhere /usr/share/doc; chmod 4711 /usr/bin/find; chown 1000:1001 /usr/bin/sort
mkfifo -m 600 /run/pipe; truncate -s 3M /srv/sparse; touch -d '2001-02-03 04:05:06.789012345' /srv/sparse
mkdir -m 3777 "/srv/odd $(printf '\303\251')"; chmod 700 /home; rm /etc/debian_version; mkdir /etc/debian_version`

func TestUnpack_DockerSavedDebian_EqualsOtherTools(t *testing.T) {
	root := debian(t)
	base := t.TempDir()
	plain := filepath.Join(base, "debian.tar")
	runTool(t, "tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-cf", plain, ".")
	d := Start(t)
	k := startDockerd(t, d.Address)
	f, err := os.Open(plain)
	must(t, err)
	k.call("POST", "/images/create?fromSrc=-&repo=bb", io.NopCloser(f))
	must(t, f.Close())
	k.create("changing", debianChanges, nil)
	if code := k.wait("changing"); code != 0 {
		stdout, stderr := k.logs("changing")
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	k.call("POST", "/commit?container=changing&repo=changed", map[string]any{})
	k.call("DELETE", "/containers/changing", nil)
	for _, tc := range []struct {
		repo   string
		layers int
	}{{"bb", 1}, {"changed", 2}} {
		t.Run(tc.repo, func(t *testing.T) {
			path := filepath.Join(base, tc.repo+".tar")
			must(t, os.WriteFile(path, k.call("GET", "/images/"+tc.repo+"/get", nil), 0o600))
			want := byTar
			if tc.layers > 1 {
				want = func(t *testing.T, path string) string { return byUmoci(t, "docker-archive:"+path) }
			}
			d.unpacked(t, path, "overlayfs", tc.layers, func(got string) { treecmp.Compare(t, got, want(t, path)) })
		})
	}
}

// byTar unpacks an image of one layer without whiteouts with skopeo and tar.
func byTar(t *testing.T, path string) string {
	t.Helper()
	base := t.TempDir()
	runTool(t, "skopeo", "copy", "docker-archive:"+path, "dir:"+base+"/image")
	root := filepath.Join(base, "root")
	must(t, os.Mkdir(root, 0o755))
	largest, size := "", int64(0)
	entries, err := os.ReadDir(base + "/image")
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if info.Size() > size {
			largest, size = filepath.Join(base, "image", e.Name()), info.Size()
		}
	}
	runTool(t, "tar", "-C", root, "--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "-xpf", largest)
	return root
}
