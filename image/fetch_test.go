package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/internal/ctxio"
)

// source has blobs in memory. lie, if set, changes its answers.
type source struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	sent  map[digest.Digest]int64
	lie   func(d digest.Digest, data []byte) []byte
	cut   func(d digest.Digest) int // after how many bytes a connection breaks; -1 for never
}

func newSource() *source {
	return &source{blobs: make(map[digest.Digest][]byte), sent: make(map[digest.Digest]int64)}
}

func (s *source) put(mediaType string, v any) ocispec.Descriptor {
	raw, ok := v.([]byte)
	if !ok {
		raw, _ = json.Marshal(v) // of types that can be
	}
	d := digest.FromBytes(raw)
	s.blobs[d] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func (s *source) image(os, arch string, layers ...string) ocispec.Descriptor {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	img := ocispec.Image{Platform: ocispec.Platform{OS: os, Architecture: arch}}
	for _, l := range layers {
		m.Layers = append(m.Layers, s.put(ocispec.MediaTypeImageLayer, []byte(l)))
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromString(l))
	}
	m.Config = s.put(ocispec.MediaTypeImageConfig, img)
	return s.put(ocispec.MediaTypeImageManifest, m)
}

type cutReader struct {
	io.Reader
	left int
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, fmt.Errorf("cut: %w", errdefs.ErrUnavailable)
	}
	n, err := c.Reader.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (s *source) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.blobs[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, errdefs.ErrNotFound)
	}
	if s.lie != nil {
		data = s.lie(desc.Digest, data)
	}
	data = data[min(offset, int64(len(data))):]
	var r io.Reader = bytes.NewReader(data)
	if s.cut != nil {
		if n := s.cut(desc.Digest); n >= 0 {
			data = data[:min(n, len(data))]
			r = &cutReader{r, n}
		}
	}
	s.sent[desc.Digest] += int64(len(data))
	return io.NopCloser(r), nil
}

func openStore(t *testing.T) (*content.Store, image.Content) {
	t.Helper()
	s, err := content.Open(filepath.Join(t.TempDir(), "content"))
	if err != nil {
		t.Fatal(err)
	}
	return s, imagetest.FromStore(s)
}

// fetchAll fetches an image with its layers.
func fetchAll(t *testing.T, c image.Content, s image.Source, target ocispec.Descriptor, opts image.FetchOptions) error {
	t.Helper()
	f, err := image.Fetch(t.Context(), c, s, target, opts)
	if err != nil {
		return err
	}
	return f.Layers(t.Context())
}

func amd64() platforms.MatchComparer { return platforms.Only(platforms.MustParse("linux/amd64")) }

func ingests(t *testing.T, s *content.Store) []content.Status {
	t.Helper()
	list, err := s.ListStatuses(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestFetch_FetchesSelectedPlatformOnly(t *testing.T) {
	src := newSource()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	want := make(map[string]ocispec.Descriptor)
	for _, arch := range []string{"amd64", "arm64", "s390x"} {
		d := src.image("linux", arch, "layer of "+arch, "shared")
		if arch != "s390x" { // only its configuration states the platform
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		}
		want[arch] = d
		index.Manifests = append(index.Manifests, d)
	}
	index.Manifests = append(index.Manifests, src.put("application/x-unknown", []byte("?")))
	nested := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{src.put(ocispec.MediaTypeImageIndex, index)}}
	target := src.put(ocispec.MediaTypeImageIndex, nested)
	for _, arch := range []string{"amd64", "s390x"} {
		_, c := openStore(t)
		match := platforms.Only(ocispec.Platform{OS: "linux", Architecture: arch})
		if err := fetchAll(t, c, src, target, image.FetchOptions{Platform: match}); err != nil {
			t.Fatal(err)
		}
		if _, desc, err := image.Manifest(t.Context(), c, target, match); err != nil || desc.Digest != want[arch].Digest {
			t.Errorf("%s: %v, %v", arch, desc.Digest, err)
		}
		if _, err := c.ReaderAt(t.Context(), digest.FromString("layer of arm64")); !errdefs.IsNotFound(err) {
			t.Errorf("%s: a layer of another platform is present: %v", arch, err)
		}
	}
	_, c := openStore(t)
	err := fetchAll(t, c, src, target, image.FetchOptions{Platform: platforms.Only(platforms.MustParse("linux/riscv64"))})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Error(err)
	}
	if err := fetchAll(t, c, src, target, image.FetchOptions{Some: &image.Choice{}}); err != nil {
		t.Fatal(err)
	}
	before := src.sent[digest.FromString("shared")]
	if err := fetchAll(t, c, src, target, image.FetchOptions{Some: &image.Choice{}}); err != nil || src.sent[digest.FromString("shared")] != before {
		t.Errorf("present blobs were fetched again: %v", err)
	}
}

func TestFetch_AfterCut_Resumes(t *testing.T) {
	src := newSource()
	data := strings.Repeat("0123456789", 50)
	target := src.image("linux", "amd64", data)
	layer := digest.FromString(data)
	for cut := range len(data) {
		s, c := openStore(t)
		src.sent[layer] = 0
		src.cut = func(d digest.Digest) int {
			if d == layer {
				return cut
			}
			return -1
		}
		if err := fetchAll(t, c, src, target, image.FetchOptions{Platform: amd64()}); !errdefs.IsUnavailable(err) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		left := ingests(t, s)
		if cut == 0 && len(left) != 0 || cut > 0 && (len(left) != 1 || left[0].Offset != int64(cut) || left[0].Ref != image.FetchRef(layer)) {
			t.Fatalf("cut at %d leaves %+v", cut, left)
		}
		src.cut = nil
		if err := fetchAll(t, c, src, target, image.FetchOptions{Platform: amd64()}); err != nil {
			t.Fatalf("after a cut at %d: %v", cut, err)
		}
		if src.sent[layer] != int64(len(data)) || len(ingests(t, s)) != 0 {
			t.Fatalf("cut at %d: %d bytes were sent of %d, left are %+v", cut, src.sent[layer], len(data), ingests(t, s))
		}
	}
}

// fullDisk is a store with space for only one byte of a blob; the other blobs are started before.
type fullDisk struct {
	image.Content
	blob  digest.Digest
	begun <-chan struct{}
}

func (c fullDisk) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	w, err := c.Content.Writer(ctx, ref, opts)
	if err != nil || opts.Expected != c.blob {
		return w, err
	}
	return fullWriter{w, c.begun}, nil
}

type fullWriter struct {
	image.BlobWriter
	begun <-chan struct{}
}

func (w fullWriter) Write(p []byte) (int, error) {
	<-w.begun
	n, err := w.BlobWriter.Write(p[:1])
	return n, errors.Join(err, fmt.Errorf("write: %w: %w", syscall.ENOSPC, errdefs.ErrResourceExhausted))
}

// stuckSource sends the first byte of a blob and then blocks.
type stuckSource struct {
	*source
	blob  digest.Digest
	begun chan<- struct{}
}

func (s stuckSource) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := s.source.Fetch(ctx, desc, offset)
	if err != nil || desc.Digest != s.blob {
		return rc, err
	}
	first := true
	return io.NopCloser(ctxio.ReaderFunc(func(p []byte) (int, error) {
		if first {
			first = false
			return rc.Read(p[:1])
		}
		close(s.begun) // the first byte is written
		<-ctx.Done()
		return 0, ctx.Err()
	})), nil
}

func TestFetch_FullDisk_LeavesNothing(t *testing.T) {
	src := newSource()
	target := src.image("linux", "amd64", "the one that does not fit", "another one")
	s, c := openStore(t)
	begun := make(chan struct{})
	err := fetchAll(t, fullDisk{c, digest.FromString("the one that does not fit"), begun},
		stuckSource{src, digest.FromString("another one"), begun}, target, image.FetchOptions{Platform: amd64()})
	if !errdefs.IsResourceExhausted(err) {
		t.Error(err)
	}
	if left := ingests(t, s); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

func TestFetch_WrongContent_IsRefused(t *testing.T) {
	flip := func(_ digest.Digest, data []byte) []byte {
		out := bytes.Clone(data)
		out[len(out)/2] ^= 1
		return out
	}
	for name, lie := range map[string]func(d digest.Digest, data []byte) []byte{
		"other bytes": flip,
		"fewer":       func(_ digest.Digest, data []byte) []byte { return data[:len(data)-1] },
		"more":        func(_ digest.Digest, data []byte) []byte { return append(bytes.Clone(data), 'x') },
	} {
		for _, only := range []bool{false, true} { // in the layer alone, or in all
			src := newSource()
			target := src.image("linux", "amd64", "the layer")
			src.lie = func(d digest.Digest, data []byte) []byte {
				if only && d != digest.FromString("the layer") {
					return data
				}
				return lie(d, data)
			}
			s, c := openStore(t)
			err := fetchAll(t, c, src, target, image.FetchOptions{Platform: amd64()})
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "registry") {
				t.Errorf("%s: %v", name, err)
			}
			if left := ingests(t, s); len(left) != 0 {
				t.Errorf("%s leaves %+v", name, left)
			}
		}
	}
	// Wrong bytes of an earlier fetch do not prevent the next.
	src := newSource()
	target := src.image("linux", "amd64", "the layer")
	_, c := openStore(t)
	w, err := c.Writer(t.Context(), image.FetchRef(digest.FromString("the layer")), content.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("not")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fetchAll(t, c, src, target, image.FetchOptions{Platform: amd64()}); err != nil {
		t.Error(err)
	}
}

func TestFetch_RefusesBadDocuments(t *testing.T) {
	src := newSource()
	manifest := src.image("linux", "amd64", "x")
	deep := src.put(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{manifest}})
	for range image.MaxNesting {
		deep = src.put(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{deep}})
	}
	layer := src.put(ocispec.MediaTypeImageLayer, []byte("y"))
	var layers []ocispec.Descriptor
	for range 40_000 {
		layers = append(layers, layer)
	}
	many := ocispec.Manifest{Config: src.put(ocispec.MediaTypeImageConfig, ocispec.Image{}), Layers: layers}
	millions := many
	for len(millions.Layers) < 200_000 { // more cannot be read: two million behave the same
		millions.Layers = append(millions.Layers, layers...)
	}
	// An index cannot hold its own digest; one that claims to does not match its digest.
	self := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("self")}
	raw, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{self}})
	src.blobs[self.Digest], self.Size = raw, int64(len(raw))
	wide := ocispec.Index{}
	for i := range image.MaxManifests + 1 {
		wide.Manifests = append(wide.Manifests, src.image("linux", "amd64", fmt.Sprint(i)))
	}
	huge := manifest
	huge.Size = 1 << 40
	for name, tt := range map[string]struct {
		target ocispec.Descriptor
		is     func(error) bool
	}{
		"nested too deep":    {deep, errdefs.IsInvalidArgument},
		"40,000 layers":      {src.put(ocispec.MediaTypeImageManifest, many), errdefs.IsInvalidArgument},
		"millions of layers": {src.put(ocispec.MediaTypeImageManifest, millions), errdefs.IsInvalidArgument},
		"refers to itself":   {self, errdefs.IsFailedPrecondition},
		"too many images":    {src.put(ocispec.MediaTypeImageIndex, wide), errdefs.IsInvalidArgument},
		"a huge manifest":    {huge, errdefs.IsInvalidArgument},
		"no image":           {src.put("application/x", []byte("z")), errdefs.IsNotImplemented},
		"a manifest that is an index": {src.put(ocispec.MediaTypeImageManifest,
			map[string]any{"config": manifest, "manifests": []any{}}), errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := openStore(t)
			for _, some := range []*image.Choice{{}, nil} {
				err := fetchAll(t, c, src, tt.target, image.FetchOptions{Platform: amd64(), Some: some})
				if !tt.is(err) {
					t.Errorf("all %t: %v", some != nil, err)
				}
			}
			if left := ingests(t, s); len(left) != 0 {
				t.Errorf("it leaves %+v", left)
			}
		})
	}
}
