package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

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
	Must(r.t, err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.Direct.Do(req)
	Must(r.t, err)
	text, err := io.ReadAll(resp.Body)
	Must(r.t, err)
	Must(r.t, resp.Body.Close())
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
	Must(r.t, err)
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
	img := ocispec.Image{Platform: p, Config: BusyboxConfig(), RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		m.Layers = append(m.Layers, r.Blob(repository, ocispec.MediaTypeImageLayer, l))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
	}
	raw, err := json.Marshal(img)
	Must(r.t, err)
	m.Config = r.Blob(repository, ocispec.MediaTypeImageConfig, raw)
	return r.Document(repository, tag, ocispec.MediaTypeImageManifest, m)
}

// MultiPlatform puts an index of the test image for several platforms and returns its digest.
func (r *Registry) MultiPlatform(name string, platforms ...string) string {
	r.t.Helper()
	repository, tag, _ := strings.Cut(name, ":")
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i, text := range platforms {
		part := strings.Split(text+"/", "/")
		p := ocispec.Platform{OS: part[0], Architecture: part[1], Variant: part[2]}
		d := r.Image(repository, "", p, TarOf(r.t, BusyboxFiles(r.t)), TarOf(r.t, []File{{Name: "only", Mode: 0o644, Body: fmt.Sprint(i)}}))
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
	}
	return r.Document(repository, tag, ocispec.MediaTypeImageIndex, index).Digest.String()
}
