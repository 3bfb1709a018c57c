package images

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
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

func TestUnpack_BuildahImages_EqualsOtherTools(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	from := "scratch"
	for i, script := range layerScripts {
		name := harness.Buildah(t, base, "from", "--pull-never", from)
		root := harness.Buildah(t, base, "mount", name)
		shell(t, "cd "+root+"\n"+script)
		if i == 0 {
			harness.Must(t, unix.Setxattr(root+"/etc", "user.note", []byte("text"), 0))
		}
		harness.Buildah(t, base, "umount", name)
		from = fmt.Sprint("localhost/layer:", i)
		harness.Buildah(t, base, "commit", "--rm", name, from)
	}
	d := harness.Start(t)
	for _, format := range []string{"oci-archive", "docker-archive"} {
		path := filepath.Join(base, format+".tar")
		harness.Buildah(t, base, "push", from, format+":"+path+":docker.io/library/exact:latest")
		want := byUmoci(t, format+":"+path)
		for _, snapshotter := range []string{"overlayfs", "native", "erofs"} {
			t.Run(format+" on "+snapshotter, func(t *testing.T) {
				unpacked(d, t, path, snapshotter, len(layerScripts), func(got string) { treecmp.Compare(t, got, want) })
			})
		}
	}
}

// debian creates a minimal Debian with debootstrap, from the package source of this machine.
func debian(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(SUITE)", "Created-By: Packages").Output()
	harness.Must(t, err)
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
	t.Parallel()
	root := debian(t)
	base := t.TempDir()
	plain := filepath.Join(base, "debian.tar")
	runTool(t, "tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-cf", plain, ".")
	d := harness.Start(t)
	k := harness.StartDockerd(t, d.Address)
	f, err := os.Open(plain)
	harness.Must(t, err)
	k.Call("POST", "/images/create?fromSrc=-&repo=bb", io.NopCloser(f))
	harness.Must(t, f.Close())
	k.Create("changing", debianChanges, nil)
	if code := k.Wait("changing"); code != 0 {
		stdout, stderr := k.Logs("changing")
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	k.Call("POST", "/commit?container=changing&repo=changed", map[string]any{})
	k.Call("DELETE", "/containers/changing", nil)
	for _, tc := range []struct {
		repo   string
		layers int
	}{{"bb", 1}, {"changed", 2}} {
		t.Run(tc.repo, func(t *testing.T) {
			path := filepath.Join(base, tc.repo+".tar")
			harness.Must(t, os.WriteFile(path, k.Call("GET", "/images/"+tc.repo+"/get", nil), 0o600))
			want := byTar
			if tc.layers > 1 {
				want = func(t *testing.T, path string) string { return byUmoci(t, "docker-archive:"+path) }
			}
			unpacked(d, t, path, "overlayfs", tc.layers, func(got string) { treecmp.Compare(t, got, want(t, path)) })
		})
	}
}

// byTar unpacks an image of one layer without whiteouts with skopeo and tar.
func byTar(t *testing.T, path string) string {
	t.Helper()
	base := t.TempDir()
	runTool(t, "skopeo", "copy", "docker-archive:"+path, "dir:"+base+"/image")
	root := filepath.Join(base, "root")
	harness.Must(t, os.Mkdir(root, 0o755))
	largest, size := "", int64(0)
	entries, err := os.ReadDir(base + "/image")
	harness.Must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		harness.Must(t, err)
		if info.Size() > size {
			largest, size = filepath.Join(base, "image", e.Name()), info.Size()
		}
	}
	runTool(t, "tar", "-C", root, "--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*", "-xpf", largest)
	return root
}
