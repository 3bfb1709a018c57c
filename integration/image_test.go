package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// applets are the busybox commands of the test image.
var applets = []string{
	"sh", "ash", "cat", "cp", "date", "dd", "echo", "env", "expr", "false", "head", "hostname", "id", "kill", "ln", "ls",
	"md5sum", "mkdir", "mknod", "mount", "nc", "nproc", "od", "printf", "ps", "pwd", "readlink", "rm", "seq", "setsid",
	"sha256sum", "sleep", "stat", "stty", "sync", "tail", "test", "touch", "true", "tr", "tty", "uname", "wc", "yes",
}

// file is an entry of a layer.
type file struct {
	name, link, body string
	mode             int64
	dir              bool
}

// busyboxFiles are the files of the test image.
func busyboxFiles(t *testing.T) []file {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	must(t, err)
	files := []file{
		{name: "bin", dir: true, mode: 0o755}, {name: "etc", dir: true, mode: 0o755},
		{name: "proc", dir: true, mode: 0o755}, {name: "sys", dir: true, mode: 0o755},
		{name: "dev", dir: true, mode: 0o755}, {name: "tmp", dir: true, mode: 0o1777},
		{name: "root", dir: true, mode: 0o700}, {name: "data", dir: true, mode: 0o755},
		{name: "bin/busybox", body: string(bin), mode: 0o755},
		{name: "etc/passwd", mode: 0o644, body: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n"},
		{name: "etc/group", mode: 0o644, body: "root:x:0:\nweb:x:1001:\nstaff:x:50:web\n"},
		{name: "bin/plain", body: "not a program", mode: 0o644},
	}
	for _, a := range applets {
		files = append(files, file{name: "bin/" + a, link: "busybox"})
	}
	return files
}

// tarOf returns a tar stream of files.
func tarOf(t *testing.T, files []file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		switch {
		case f.dir:
			h.Typeflag, h.Name = tar.TypeDir, f.name+"/"
		case f.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write([]byte(f.body))
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// ociArchive writes an OCI layout as a tar archive and returns its path. alter, if not nil, may change the blobs
// after they were named, to create an inconsistent archive.
func ociArchive(t *testing.T, layers [][]byte, cfg ocispec.ImageConfig, alter func(blobs map[digest.Digest][]byte)) string {
	t.Helper()
	return codedArchive(t, ocispec.MediaTypeImageLayer, layers, layers, cfg, alter)
}

// codedArchive is ociArchive with layers that are stored in another form than unpacked.
func codedArchive(
	t *testing.T, mediaType string, coded, layers [][]byte, cfg ocispec.ImageConfig, alter func(blobs map[digest.Digest][]byte),
) string {
	t.Helper()
	blobs := make(map[digest.Digest][]byte)
	put := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		blobs[d] = data
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	encode := func(v any) []byte {
		data, err := json.Marshal(v)
		must(t, err)
		return data
	}
	img := ocispec.Image{Config: cfg, RootFS: ocispec.RootFS{Type: "layers"}}
	img.OS, img.Architecture = "linux", "amd64"
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, l := range layers {
		manifest.Layers = append(manifest.Layers, put(mediaType, coded[i]))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
	}
	manifest.Config = put(ocispec.MediaTypeImageConfig, encode(img))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	index.Manifests = []ocispec.Descriptor{put(ocispec.MediaTypeImageManifest, encode(manifest))}
	if alter != nil {
		alter(blobs)
	}
	files := []file{
		{name: "oci-layout", mode: 0o644, body: `{"imageLayoutVersion":"1.0.0"}`},
		{name: "index.json", mode: 0o644, body: string(encode(index))},
	}
	for d, data := range blobs {
		files = append(files, file{name: "blobs/" + d.Algorithm().String() + "/" + d.Encoded(), mode: 0o644, body: string(data)})
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	must(t, os.WriteFile(path, tarOf(t, files), 0o600))
	return path
}

// busyboxConfig is the configuration of the test image.
func busyboxConfig() ocispec.ImageConfig {
	return ocispec.ImageConfig{Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}, Cmd: []string{"/bin/sh"}}
}

// busyboxArchive writes the test image.
func busyboxArchive(t *testing.T) string {
	t.Helper()
	return ociArchive(t, [][]byte{tarOf(t, busyboxFiles(t))}, busyboxConfig(), nil)
}
