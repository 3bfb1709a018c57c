package registry

import (
	"encoding/json"
	"io"
	"net/http"
	"path"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// documents is a registry of documents; knows means that it maintains referrers itself.
type documents struct {
	knows bool
	mu    sync.Mutex
	kept  map[string][]byte
}

func (d *documents) answer(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := path.Base(r.URL.Path)
	if r.Method == http.MethodPut {
		d.kept[name], _ = io.ReadAll(r.Body)
		if d.knows {
			w.Header().Set(subjectHeader, "sha256:0")
		}
		w.WriteHeader(http.StatusCreated)
		return
	}
	raw, ok := d.kept[name]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = w.Write(raw)
}

func TestPushManifest_WithSubject_IsFoundBySubject(t *testing.T) {
	subject := digest.FromString("subject")
	tag := "sha256-" + subject.Encoded()
	marshal := func(v any) []byte {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	of := func(kind string) []byte {
		return marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: kind},
			Subject: &ocispec.Descriptor{Digest: subject, Size: 7, MediaType: ocispec.MediaTypeImageManifest}, Annotations: map[string]string{"of": kind},
		})
	}
	reg := &documents{kept: make(map[string][]byte)}
	r := open(t, newLiar(t, reg.answer).host(), "", Credential{})
	push := func(r *Repository, raw []byte) error {
		return r.PushManifest(t.Context(), describe(ocispec.MediaTypeImageManifest, raw), raw, false)
	}
	for _, kind := range []string{"application/sbom", "application/signature", "application/sbom"} {
		if err := push(r, of(kind)); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal(reg.kept[tag], &index); err != nil || len(index.Manifests) != 2 || index.SchemaVersion != 2 {
		t.Fatalf("%s, %v", reg.kept[tag], err)
	}
	for i, kind := range []string{"application/sbom", "application/signature"} {
		d := index.Manifests[i]
		if d.Digest != digest.FromBytes(of(kind)) || d.ArtifactType != kind || d.Annotations["of"] != kind || d.Size != int64(len(of(kind))) {
			t.Errorf("%+v", d)
		}
	}
	// A document in its place that is not an index is kept.
	reg.kept[tag] = []byte(`{"mediaType":"application/x"}`)
	err := push(r, of("application/x"))
	checkError(t, err, errdefs.IsFailedPrecondition, tag)
	if string(reg.kept[tag]) != `{"mediaType":"application/x"}` {
		t.Errorf("%s", reg.kept[tag])
	}
	wrong := marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Subject: &ocispec.Descriptor{Digest: "sha256:../x"}})
	checkError(t, push(r, wrong), errdefs.IsInvalidArgument, "subject")

	// A registry that maintains them, and documents without a subject, need no index.
	for _, reg := range []*documents{{knows: true, kept: make(map[string][]byte)}, {kept: make(map[string][]byte)}} {
		raw := of("application/x")
		if !reg.knows {
			raw = marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest})
		}
		if err := push(open(t, newLiar(t, reg.answer).host(), "", Credential{}), raw); err != nil || len(reg.kept) != 1 {
			t.Errorf("%d documents, %v", len(reg.kept), err)
		}
	}
}
