package harness

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// applets are the commands of the test image.
var applets = []string{"sh", "cat", "cp", "echo", "env", "false", "id", "kill", "ls", "ps", "rm", "sleep", "stty", "touch", "true", "tty"}

// descriptor is a descriptor of the OCI image specification.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Image returns an archive of an OCI layout with one image of the given name: busybox, in two layers. PATH is /bin;
// the second layer has /etc/layer.
func Image(t *testing.T, name string) []byte {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	Must(t, err)
	first := []*tar.Header{dir("bin"), dir("etc"), dir("proc"), dir("sys"), dir("dev"), dir("tmp"), dir("root"), regular("bin/busybox", bin)}
	bodies := map[string][]byte{"bin/busybox": bin, "etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\n"), "etc/layer": []byte("two\n")}
	for _, a := range applets {
		first = append(first, &tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	first = append(first, regular("etc/passwd", bodies["etc/passwd"]))
	second := []*tar.Header{dir("etc"), regular("etc/layer", bodies["etc/layer"])}
	layers := [][]byte{tarOf(t, first, bodies), tarOf(t, second, bodies)}

	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	put := func(mediaType string, data []byte) descriptor {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		files["blobs/sha256/"+sum] = data
		return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(data)}
	}
	var described []descriptor
	var diffIDs []string
	for _, l := range layers {
		d := put("application/vnd.oci.image.layer.v1.tar", l)
		described, diffIDs = append(described, d), append(diffIDs, d.Digest)
	}
	config := put("application/vnd.oci.image.config.v1+json", encode(t, map[string]any{
		"os": "linux", "architecture": "amd64",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}))
	manifest := put("application/vnd.oci.image.manifest.v1+json", encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": described,
	}))
	manifest.Annotations = map[string]string{"io.containerd.image.name": name}
	files["index.json"] = encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{manifest},
	})
	var headers []*tar.Header
	for n, body := range files {
		headers = append(headers, regular(n, body))
	}
	return tarOf(t, headers, files)
}

func dir(name string) *tar.Header {
	return &tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}
}

func regular(name string, body []byte) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body))}
}

func tarOf(t *testing.T, headers []*tar.Header, bodies map[string][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		Must(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write(bodies[h.Name])
			Must(t, err)
		}
	}
	Must(t, w.Close())
	return buf.Bytes()
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	Must(t, err)
	return data
}
