package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// imageName is the name of the image in both daemons.
const imageName = "docker.io/library/cleatbench:latest"

// image is a busybox image: its archive, and its only layer's digest, which is the chain's too.
type image struct {
	archive string
	chainID string
}

// programs are the names of busybox's links.
func programs() []string { return []string{"sh", "true", "sleep", "dd", "cat", "echo"} }

// buildImage writes an OCI archive of one layer with a static busybox.
func buildImage(dir string) (image, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return image{}, fmt.Errorf("read busybox (Debian: busybox-static): %w", err)
	}
	layer, err := tarOf(layerFiles(busybox))
	if err != nil {
		return image{}, err
	}
	img := image{archive: filepath.Join(dir, "image.tar"), chainID: digest(layer)}
	_, err = writeLayout(img.archive, imageName, []string{"/bin/true"}, []layoutLayer{{"application/vnd.oci.image.layer.v1.tar", digest(layer), layer}})
	return img, err
}

// layoutLayer is a layer of an image to write: its stored form, and its uncompressed digest.
type layoutLayer struct {
	mediaType, diffID string
	data              []byte
}

// writeLayout writes an OCI layout with one image as a tar archive, and returns its manifest's digest.
func writeLayout(path, name string, command []string, layers []layoutLayer) (manifestDigest string, err error) {
	files := []file{{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	put := func(mediaType string, data []byte) map[string]any {
		files = append(files, file{name: "blobs/sha256/" + digest(data)[len("sha256:"):], data: data})
		return descriptor(mediaType, data)
	}
	var diffIDs []string
	var descs []any
	for _, l := range layers {
		diffIDs, descs = append(diffIDs, l.diffID), append(descs, put(l.mediaType, l.data))
	}
	configuration := map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}
	if command != nil {
		configuration["config"] = map[string]any{"Cmd": command}
	}
	config, err := json.Marshal(configuration)
	if err != nil {
		return "", err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": put("application/vnd.oci.image.config.v1+json", config), "layers": descs,
	})
	if err != nil {
		return "", err
	}
	entry := put("application/vnd.oci.image.manifest.v1+json", manifest)
	entry["annotations"] = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{entry}})
	if err != nil {
		return "", err
	}
	archive, err := tarOf(append(files, file{name: "index.json", data: index}))
	if err != nil {
		return "", err
	}
	return digest(manifest), os.WriteFile(path, archive, 0o600)
}

func layerFiles(busybox []byte) []file {
	files := []file{{name: "bin/", mode: 0o755}, {name: "bin/busybox", data: busybox, mode: 0o755}}
	for _, p := range programs() {
		files = append(files, file{name: "bin/" + p, link: "busybox"})
	}
	return files
}

// unpackTo creates the same root file system as a plain directory, for bare runc.
func unpackTo(root string) error {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	for _, f := range layerFiles(busybox)[1:] {
		path := filepath.Join(root, f.name)
		if f.link != "" {
			err = os.Symlink(f.link, path)
		} else {
			err = os.WriteFile(path, f.data, f.mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type file struct {
	name, link string
	data       []byte
	mode       os.FileMode
}

func tarOf(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: int64(f.mode | 0o444), Size: int64(len(f.data)), Linkname: f.link, Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		case f.name[len(f.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func descriptor(mediaType string, data []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
}
