package edit

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/reason"
)

// ConvertOptions set the form of a converted image. The zero value changes nothing.
type ConvertOptions struct {
	// Compression of the layers; nil keeps it.
	Compression *archive.Compression
	// Level of the compression; 0 is its default. If it is set, layers that already have the compression
	// are compressed again.
	Level int
	// Format of the documents; "" keeps it.
	Format image.Format
	// Platform, if not nil, converts only the manifest that matches it best.
	Platform platforms.MatchComparer
	// All makes the conversion fail if a platform of the image is incomplete.
	All bool
	// Parallel is how many layers are converted at the same time; 0 for two.
	Parallel int
	Helpers  []archive.Helper
	// Watch, if not nil, is called with the progress of a layer, in bytes of its old form.
	Watch func(desc ocispec.Descriptor, state image.State, done int64)
}

// The states of a layer that is converted.
const (
	StateConverting image.State = "converting"
	StateConverted  image.State = "converted"
)

// Convert stores an image with the same files, but with layers or documents in another form, and returns
// its descriptor. Parts that need no change keep their digest; a layer's unpacked bytes, and so the
// configuration, never change. Entries of an index that are not images or not present are kept, as are unknown
// members of documents. The same arguments make the same image. Not found if no part to convert is present.
func Convert(ctx context.Context, c image.Content, target ocispec.Descriptor, o ConvertOptions) (ocispec.Descriptor, error) {
	if o.Format == image.FormatDocker && o.Compression != nil && *o.Compression == archive.Zstd {
		return target, invalidf("convert image: Docker's documents do not support zstd layers: want gzip, or OCI's documents")
	}
	if o.Platform != nil {
		_, desc, err := image.Manifest(ctx, c, target, o.Platform)
		if err != nil {
			return target, fmt.Errorf("convert image: %w", err)
		}
		target = image.PlainTarget(desc)
	}
	if o.Watch == nil {
		o.Watch = func(ocispec.Descriptor, image.State, int64) {}
	}
	v := &conversion{content: c, opts: o, layers: make(map[digest.Digest]*convertedLayer), made: make(map[digest.Digest]ocispec.Descriptor)}
	if err := v.gather(ctx, target, 0); err != nil {
		return target, fmt.Errorf("convert image: %w", err)
	}
	if v.images == 0 {
		return target, fmt.Errorf("convert image: a part is missing for every platform: %w", reason.ImageIncomplete)
	}
	if err := v.convertLayers(ctx); err != nil {
		return target, fmt.Errorf("convert image: %w", err)
	}
	out, err := v.rewrite(ctx, target, 0)
	if err != nil {
		return target, fmt.Errorf("convert image: %w", err)
	}
	return out, nil
}

// conversion is one call of Convert.
type conversion struct {
	content image.Content
	opts    ConvertOptions
	images  int // manifests that are converted
	layers  map[digest.Digest]*convertedLayer
	order   []*convertedLayer
	// made maps a document to what it was converted to.
	made map[digest.Digest]ocispec.Descriptor
}

// gather collects the manifests to convert, and their layers.
func (v *conversion) gather(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if _, ok := v.made[desc.Digest]; ok {
		return nil
	}
	switch {
	case depth > image.MaxNesting:
		return invalidf("indexes are nested more than %d deep", image.MaxNesting)
	case image.IsManifest(desc.MediaType):
		return v.gatherManifest(ctx, desc)
	case !image.IsIndex(desc.MediaType):
		return image.NotAnImage(desc)
	}
	index, err := image.ReadIndex(ctx, v.content, desc)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !image.IsManifest(d.MediaType) && !image.IsIndex(d.MediaType) || d.Annotations[image.AnnotationReference] != "" {
			continue
		}
		err := v.gather(ctx, d, depth+1)
		if errdefs.IsNotFound(err) && !v.opts.All {
			continue
		}
		if err != nil {
			return err
		}
	}
	v.made[desc.Digest] = ocispec.Descriptor{} // set when it is rewritten
	return nil
}

// annotationReferenceOf names the manifest that AnnotationReference marks another one as being about.
const annotationReferenceOf = "vnd.docker.reference.digest"

// gatherManifest records the layers of a manifest. One that is not an image is left out; one that is
// incomplete is not found.
func (v *conversion) gatherManifest(ctx context.Context, desc ocispec.Descriptor) error {
	m, err := image.ReadManifest(ctx, v.content, desc)
	if err != nil {
		return err
	}
	if !image.IsConfig(m.Config.MediaType) || len(m.Layers) > 0 && !hasLayer(m.Layers) {
		return nil
	}
	config, err := image.ReadConfigOf(ctx, v.content, m.Config)
	if err != nil {
		return err
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return invalidf("manifest has %d layers, its configuration lists %d", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	wanted := make([]*convertedLayer, len(m.Layers))
	for i, l := range m.Layers {
		if wanted[i], err = v.plan(ctx, l, config.RootFS.DiffIDs[i]); err != nil {
			return err
		}
	}
	for _, l := range wanted {
		if l != nil && v.layers[l.from.Digest] == nil {
			v.layers[l.from.Digest] = l
			v.order = append(v.order, l)
		}
	}
	v.images++
	v.made[desc.Digest] = ocispec.Descriptor{} // set when it is rewritten
	return nil
}

func hasLayer(layers []ocispec.Descriptor) bool {
	for _, l := range layers {
		if image.IsLayer(l.MediaType) {
			return true
		}
	}
	return false
}

// plan returns the target form of a layer; nil for one that is kept.
func (v *conversion) plan(ctx context.Context, l ocispec.Descriptor, diffID digest.Digest) (*convertedLayer, error) {
	_, foreign, is, ok := image.SplitLayer(l.MediaType)
	if !ok || foreign {
		return nil, nil // kept
	}
	b, err := v.content.ReaderAt(ctx, l.Digest)
	if err != nil {
		return nil, err
	}
	_ = b.Close()
	to := is
	if v.opts.Compression != nil {
		to = *v.opts.Compression
	}
	if to == archive.Zstd && v.opts.Format == image.FormatDocker {
		return nil, invalidf("layer %s: zstd is not supported by Docker's documents: want gzip", l.Digest)
	}
	if to == is && (v.opts.Compression == nil || v.opts.Level == 0) {
		return nil, nil // kept
	}
	return &convertedLayer{from: l, diffID: diffID, to: to}, nil
}

// aboutBytes reports whether an annotation describes a layer's compressed bytes, and so is wrong
// for others.
func aboutBytes(annotation string) bool {
	for _, prefix := range []string{"containerd.io/snapshot/stargz/", "io.containers.zstd-chunked.", "io.github.containers.zstd-chunked."} {
		if strings.HasPrefix(annotation, prefix) {
			return true
		}
	}
	return false
}
