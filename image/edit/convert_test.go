package edit_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/edit"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
)

// read returns a blob as text.
func read(t *testing.T, p image.Provider, d digest.Digest) string {
	t.Helper()
	b, err := p.ReaderAt(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// odd returns an image with a layer that registries do not store, one of an unknown type, foreign members and
// annotations, and an annotation about a layer's compressed bytes.
func odd(t *testing.T, diffIDs func([]digest.Digest)) (image.Content, ocispec.Descriptor) {
	t.Helper()
	f := imagetest.Files{}
	layer := imagetest.Files{"a": "1"}.Tar(t)
	zipped := f.Add(ocispec.MediaTypeImageLayerGzip, imagetest.GZ(t, layer))
	secret := f.Add(ocispec.MediaTypeImageLayerGzip+"+encrypted", []byte("secret"))
	cfg := imagetest.Config("amd64", []byte("foreign"), layer, []byte("secret"))
	if diffIDs != nil {
		diffIDs(cfg.RootFS.DiffIDs)
	}
	config := f.AddJSON(t, ocispec.MediaTypeImageConfig, cfg)
	desc := func(d ocispec.Descriptor, more string) string {
		raw, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(string(raw), "}") + more + "}"
	}
	foreign := ocispec.Descriptor{MediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Digest: digest.FromString("far"), Size: 3}
	// The foreign layer need not be present: it has its URL.
	f.Add(foreign.MediaType, []byte("far"))
	m := f.Add(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"theirs":{"b":1,"a":2},"config":`+desc(config, "")+`,"layers":[`+
		desc(foreign, `,"urls":["https://far.example/x"]`)+`,`+
		desc(zipped, `,"theirs":1,"annotations":{"io.containers.zstd-chunked.manifest-position":"1","mine":"2"}`)+`,`+desc(secret, "")+`]}`))
	index := f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"theirs":true,"manifests":[`+desc(m, `,"theirs":"x"`)+`]}`))
	// An archive has to be complete, so that the store is filled by one of this image's parts.
	f.SetIndex(t, index)
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return c, got[0].Target
}

func TestConvert_KeepsUnknownMembers(t *testing.T) {
	c, target := odd(t, nil)
	zstd := archive.Zstd
	got, err := edit.Convert(t.Context(), c, target, edit.ConvertOptions{Compression: &zstd})
	if err != nil {
		t.Fatal(err)
	}
	index := read(t, c, got.Digest)
	list, err := image.ReadIndex(t.Context(), c, got)
	if err != nil {
		t.Fatal(err)
	}
	m, err := image.ReadManifest(t.Context(), c, list.Manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, c, list.Manifests[0].Digest)
	if !strings.Contains(index, `"theirs":true`) || !strings.Contains(index, `"theirs":"x"`) || !strings.Contains(text, `"theirs":{"b":1,"a":2}`) || !strings.Contains(text, `"theirs":1`) {
		t.Errorf("lost: %s\n%s", index, text)
	}
	if m.Layers[0].Digest != digest.FromString("far") || len(m.Layers[0].URLs) != 1 || m.Layers[0].MediaType != "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" {
		t.Errorf("foreign: %+v", m.Layers[0])
	}
	if m.Layers[1].MediaType != ocispec.MediaTypeImageLayerZstd || len(m.Layers[1].Annotations) != 1 || m.Layers[1].Annotations["mine"] != "2" {
		t.Errorf("layer: %+v", m.Layers[1])
	}
	if m.Layers[2].Digest != digest.FromString("secret") || !strings.HasSuffix(m.Layers[2].MediaType, "+encrypted") {
		t.Errorf("unknown: %+v", m.Layers[2])
	}
	// Layers in the requested form are unchanged, to the byte.
	again, err := edit.Convert(t.Context(), c, got, edit.ConvertOptions{Compression: &zstd})
	if err != nil || again.Digest != got.Digest {
		t.Errorf("%v, %v", again, err)
	}
}

func TestConvert_VerifiesLayers(t *testing.T) {
	c, target := odd(t, func(ids []digest.Digest) { ids[1] = digest.FromString("else") })
	plain := archive.Uncompressed
	_, err := edit.Convert(t.Context(), c, target, edit.ConvertOptions{Compression: &plain})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "unpacked digest") {
		t.Errorf("%v", err)
	}
}

func TestConvert_EndsWithContext(t *testing.T) {
	c, target := odd(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	zstd := archive.Zstd
	_, err := edit.Convert(ctx, c, target, edit.ConvertOptions{Compression: &zstd, Watch: func(ocispec.Descriptor, image.State, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestConvert_ReportsProgress(t *testing.T) {
	c, target := odd(t, nil)
	plain := archive.Uncompressed
	var states []image.State
	_, err := edit.Convert(t.Context(), c, target, edit.ConvertOptions{Compression: &plain, Parallel: 1, Watch: func(d ocispec.Descriptor, s image.State, done int64) {
		if !slices.Contains(states, s) {
			states = append(states, s)
		}
		if s == edit.StateConverted && done != d.Size {
			t.Errorf("%d of %d", done, d.Size)
		}
	}})
	if want := []image.State{image.StateWaiting, edit.StateConverting, edit.StateConverted}; err != nil || !slices.Equal(states, want) {
		t.Errorf("%v, %v", states, err)
	}
}
