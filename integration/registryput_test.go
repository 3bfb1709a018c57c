package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// put sends a request to the registry itself, not through the proxy.
func (r *Registry) put(method, path, mediaType string, body []byte) *http.Response {
	r.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = "http://registry" + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, path, bytes.NewReader(body))
	must(r.t, err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.direct.Do(req)
	must(r.t, err)
	text, err := io.ReadAll(resp.Body)
	must(r.t, err)
	must(r.t, resp.Body.Close())
	if resp.StatusCode >= 300 {
		r.t.Fatalf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	return resp
}

// Blob puts a blob into a repository.
func (r *Registry) Blob(repository, mediaType string, data []byte) ocispec.Descriptor {
	r.t.Helper()
	d := digest.FromBytes(data)
	at := r.put(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil).Header.Get("Location")
	r.put(http.MethodPut, at+"&digest="+d.String(), "application/octet-stream", data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// Document puts a manifest or index under a tag, or under its digest if the tag is "".
func (r *Registry) Document(repository, tag, mediaType string, v any) ocispec.Descriptor {
	r.t.Helper()
	raw, err := json.Marshal(v)
	must(r.t, err)
	d := digest.FromBytes(raw)
	if tag == "" {
		tag = d.String()
	}
	r.put(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, mediaType, raw)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

// Image puts an image of the layers into a repository.
func (r *Registry) Image(repository, tag string, p ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	r.t.Helper()
	img := ocispec.Image{Platform: p, Config: busyboxConfig(), RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		m.Layers = append(m.Layers, r.Blob(repository, ocispec.MediaTypeImageLayer, l))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
	}
	raw, err := json.Marshal(img)
	must(r.t, err)
	m.Config = r.Blob(repository, ocispec.MediaTypeImageConfig, raw)
	return r.Document(repository, tag, ocispec.MediaTypeImageManifest, m)
}

// multiPlatform puts an index of the test image for several platforms and returns its digest.
func (r *Registry) multiPlatform(name string, platforms ...string) string {
	r.t.Helper()
	repository, tag, _ := strings.Cut(name, ":")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i, text := range platforms {
		part := strings.Split(text+"/", "/")
		p := ocispec.Platform{OS: part[0], Architecture: part[1], Variant: part[2]}
		d := r.Image(repository, "", p, tarOf(r.t, busyboxFiles(r.t)), tarOf(r.t, []file{{name: "only", mode: 0o644, body: fmt.Sprint(i)}}))
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
	}
	return r.Document(repository, tag, ocispec.MediaTypeImageIndex, index).Digest.String()
}

// noise returns an incompressible layer of n bytes.
func noise(t *testing.T, name string, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	for i, x := 0, uint64(len(name)); i < size; i++ {
		x = x*6364136223846793005 + uint64(name[i%len(name)])
		body[i] = byte(x >> 56)
	}
	return tarOf(t, []file{{name: name, mode: 0o644, body: string(body)}})
}
