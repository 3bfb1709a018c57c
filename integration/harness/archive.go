package harness

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Busybox imports the test image, as "busybox".
func (d *Daemon) Busybox() {
	d.T.Helper()
	d.Cleat("image", "import", "--name", "busybox", BusyboxArchive(d.T))
}

// applets returns the busybox commands of the test image.
func applets() []string {
	return []string{
		"sh", "ash", "cat", "cp", "date", "dd", "echo", "env", "expr", "false", "head", "hostname", "id", "kill", "ln", "ls",
		"md5sum", "mkdir", "mknod", "mount", "nc", "nproc", "od", "printf", "ps", "pwd", "readlink", "rm", "seq", "setsid",
		"sha256sum", "sleep", "stat", "stty", "sync", "tail", "test", "touch", "true", "tr", "tty", "uname", "wc", "yes",
	}
}

// File is an entry of a layer.
type File struct {
	Name, Link, Body string
	Mode             int64
	Dir              bool
}

// BusyboxFiles are the files of the test image.
func BusyboxFiles(t *testing.T) []File {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	Must(t, err)
	files := []File{
		{Name: "bin", Dir: true, Mode: 0o755},
		{Name: "etc", Dir: true, Mode: 0o755},
		{Name: "proc", Dir: true, Mode: 0o755},
		{Name: "sys", Dir: true, Mode: 0o755},
		{Name: "dev", Dir: true, Mode: 0o755},
		{Name: "tmp", Dir: true, Mode: 0o1777},
		{Name: "root", Dir: true, Mode: 0o700},
		{Name: "data", Dir: true, Mode: 0o755},
		{Name: "bin/busybox", Body: string(bin), Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Body: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n"},
		{Name: "etc/group", Mode: 0o644, Body: "root:x:0:\nweb:x:1001:\nstaff:x:50:web\n"},
		{Name: "bin/plain", Body: "not a program", Mode: 0o644},
	}
	for _, a := range applets() {
		files = append(files, File{Name: "bin/" + a, Link: "busybox"})
	}
	return files
}

// TarOf returns a tar stream of files.
func TarOf(t *testing.T, files []File) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		switch {
		case f.Dir:
			h.Typeflag, h.Name = tar.TypeDir, f.Name+"/"
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		}
		Must(t, w.WriteHeader(h))
		_, err := w.Write([]byte(f.Body))
		Must(t, err)
	}
	Must(t, w.Close())
	return buf.Bytes()
}

// BusyboxConfig is the configuration of the test image.
func BusyboxConfig() ocispec.ImageConfig {
	return ocispec.ImageConfig{Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}, Cmd: []string{"/bin/sh"}}
}

// BusyboxArchive writes the test image.
func BusyboxArchive(t *testing.T) string {
	t.Helper()
	return OCIArchive(t, [][]byte{TarOf(t, BusyboxFiles(t))}, BusyboxConfig(), nil)
}

// Tool runs a public tool for images.
func Tool(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// ToolArchives builds an image with umoci, and from it the archives of public tools, by the name of their kind. Its
// layer is compressed.
func ToolArchives(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	layout, bundle := filepath.Join(dir, "oci"), filepath.Join(dir, "bundle")
	Tool(t, dir, "umoci", "init", "--layout", layout)
	Tool(t, dir, "umoci", "new", "--image", layout+":box")
	Tool(t, dir, "umoci", "unpack", "--image", layout+":box", bundle)
	bin := filepath.Join(bundle, "rootfs", "bin")
	Must(t, os.Mkdir(bin, 0o755))
	data, err := os.ReadFile("/bin/busybox")
	Must(t, err)
	Must(t, os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
	Must(t, os.Symlink("busybox", filepath.Join(bin, "echo")))
	Tool(t, dir, "umoci", "repack", "--image", layout+":box", bundle)
	Tool(t, dir, "umoci", "config", "--image", layout+":box", "--config.env", "PATH=/bin", "--config.cmd", "/bin/sh")
	Tool(t, dir, "skopeo", "--insecure-policy", "copy", "oci:oci:box", "oci-archive:oci.tar:box")
	Tool(t, dir, "skopeo", "--insecure-policy", "copy", "oci:oci:box", "docker-archive:docker.tar:example.com/box:1")
	Tool(t, dir, "tar", "-C", layout, "-cf", filepath.Join(dir, "layout.tar"), ".")
	Tool(t, dir, "sh", "-c", "gzip -c oci.tar > oci.tar.gz")
	return map[string]string{
		"skopeo's OCI archive":     filepath.Join(dir, "oci.tar"),
		"it, gzip-compressed":      filepath.Join(dir, "oci.tar.gz"),
		"umoci's layout":           filepath.Join(dir, "layout.tar"),
		"a docker save archive":    filepath.Join(dir, "docker.tar"),
		"it, named by a long path": filepath.Join(dir, "bundle", "..", "docker.tar"),
	}
}

// BigArchive is the test image with a layer that is larger than a pipe's buffer.
func BigArchive(t *testing.T, size int) []byte {
	t.Helper()
	noise := make([]byte, size)
	_, err := rand.Read(noise)
	Must(t, err)
	files := append(BusyboxFiles(t), File{Name: "data/noise", Body: string(noise), Mode: 0o644})
	data, err := os.ReadFile(OCIArchive(t, [][]byte{TarOf(t, files)}, BusyboxConfig(), nil))
	Must(t, err)
	return data
}

// Amd64 is the platform of the test images.
var Amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"} //nolint:gochecknoglobals // a constant

// LayersOf returns layers of these sizes on top of those of the test image.
func LayersOf(t *testing.T, n, size int) [][]byte {
	t.Helper()
	out := [][]byte{TarOf(t, BusyboxFiles(t))}
	for i := range n {
		out = append(out, Noise(t, fmt.Sprintf("noise%d", i), size))
	}
	return out
}

// Noise returns an incompressible layer of n bytes.
func Noise(t *testing.T, name string, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	for i, x := 0, uint64(len(name)); i < size; i++ {
		x = x*6364136223846793005 + uint64(name[i%len(name)])
		body[i] = byte(x >> 56)
	}
	return TarOf(t, []File{{Name: name, Mode: 0o644, Body: string(body)}})
}

// Unpacked returns a directory with the files of the test image.
func Unpacked(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	Must(t, os.Chmod(dir, 0o755))
	for _, f := range BusyboxFiles(t) {
		path := filepath.Join(dir, f.Name)
		switch {
		case f.Dir:
			Must(t, os.MkdirAll(path, os.FileMode(f.Mode)))
		case f.Link != "":
			Must(t, os.Symlink(f.Link, path))
		default:
			Must(t, os.WriteFile(path, []byte(f.Body), os.FileMode(f.Mode)))
		}
	}
	return dir
}

// DigestOf returns the digest of a text.
func DigestOf(s string) string { return digest.FromString(s).String() }
