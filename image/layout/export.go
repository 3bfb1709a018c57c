package layout

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/ctxio"
)

// ExportOptions change what is exported. The zero value exports all that is present.
type ExportOptions struct {
	// Platform, if not nil, exports only the manifest that matches it best, without the index.
	Platform platforms.MatchComparer
	// Some, if not nil, exports only the selected manifests, with the index.
	Some *image.Choice
	// Plain leaves out the files that docker load needs in addition to an OCI layout.
	Plain bool
	// NoForeign leaves out layers that registries do not store.
	NoForeign bool
}

// Export writes images as one archive: an OCI image layout, which `docker load` accepts as well by
// the additional manifest.json. It holds all that is present of an image, byte for byte, for every
// platform that is complete, unless the options say otherwise. Import returns the same digests.
// Not found if an image is complete for no platform; nothing was written then.
func Export(ctx context.Context, p image.Provider, w io.Writer, images []Imported, opts ExportOptions) error {
	e := &export{content: p, opts: opts, seen: make(map[digest.Digest]bool)}
	for _, img := range images {
		if err := e.add(ctx, img); err != nil {
			return fmt.Errorf("export image %s: %w", img.Name, err)
		}
	}
	if err := e.write(ctx, w); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	return nil
}

// export is one call of Export.
type export struct {
	content image.Provider
	opts    ExportOptions
	index   []ocispec.Descriptor
	saved   []savedImage
	seen    map[digest.Digest]bool
	blobs   []ocispec.Descriptor
}

// add records the content of an image.
func (e *export) add(ctx context.Context, img Imported) error {
	target := image.PlainTarget(img.Target)
	content, target, err := e.choose(ctx, target)
	if err != nil {
		return err
	}
	err = image.Walk(ctx, content, target, func(d ocispec.Descriptor) error {
		if !e.seen[d.Digest] && (!e.opts.NoForeign || !image.IsForeign(d.MediaType)) {
			e.seen[d.Digest] = true
			e.blobs = append(e.blobs, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := e.save(ctx, content, img.Name, target); err != nil {
		return err
	}
	named := target
	named.Annotations = map[string]string{annotationName: img.Name}
	if ref, err := reference.ParseNormalizedNamed(img.Name); err == nil {
		if t, ok := ref.(reference.Tagged); ok {
			named.Annotations[ocispec.AnnotationRefName] = t.Tag()
		}
	}
	e.index = append(e.index, named)
	return nil
}

// save records the image in docker load's form, which has one platform: this machine's, or the first
// that is present.
func (e *export) save(ctx context.Context, content image.Provider, name string, target ocispec.Descriptor) error {
	m, _, err := image.Manifest(ctx, content, target, platforms.Default())
	if errdefs.IsNotFound(err) {
		m, _, err = image.Manifest(ctx, content, target, platforms.All)
	}
	if errdefs.IsNotFound(err) {
		return nil // an artifact, which docker load does not support
	}
	if err != nil {
		return err
	}
	s := savedImage{Config: blobPath(m.Config.Digest)}
	for _, l := range m.Layers {
		s.Layers = append(s.Layers, blobPath(l.Digest))
	}
	if ref, err := reference.ParseNormalizedNamed(name); err == nil {
		if _, ok := ref.(reference.Tagged); ok {
			s.RepoTags = []string{reference.FamiliarString(ref)}
		}
	}
	e.saved = append(e.saved, s)
	return nil
}

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// write writes the archive; the same images give the same bytes.
func (e *export) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	type document struct {
		name string
		v    any
	}
	docs := []document{
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{ocispec.ImageIndexFile, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: e.index,
		}},
	}
	if !e.opts.Plain {
		docs = append(docs, document{"manifest.json", e.saved})
	}
	for _, doc := range docs {
		raw, err := json.Marshal(doc.v)
		if err != nil {
			return fmt.Errorf("make %s: %w", doc.name, err)
		}
		if err := tw.WriteHeader(entry(doc.name, int64(len(raw)))); err != nil {
			return err
		}
		if _, err := tw.Write(raw); err != nil {
			return err
		}
	}
	buf := make([]byte, ctxio.BufferSize)
	made := make(map[string]bool)
	for _, d := range e.blobs {
		if err := e.writeDirectories(tw, d, made); err != nil {
			return err
		}
		if err := e.writeBlob(ctx, tw, d, buf); err != nil {
			return err
		}
	}
	return tw.Close()
}

// writeDirectories writes the entries of the directories above a blob that were not written yet.
func (e *export) writeDirectories(tw *tar.Writer, d ocispec.Descriptor, made map[string]bool) error {
	for _, dir := range []string{ocispec.ImageBlobsDir + "/", path.Dir(blobPath(d.Digest)) + "/"} {
		if made[dir] {
			continue
		}
		made[dir] = true
		if err := tw.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

func entry(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o444, Size: size}
}

func (e *export) writeBlob(ctx context.Context, tw *tar.Writer, d ocispec.Descriptor, buf []byte) (err error) {
	b, err := e.content.ReaderAt(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := tw.WriteHeader(entry(blobPath(d.Digest), b.Size())); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{tw}, ctxio.Reader(ctx, io.NewSectionReader(b, 0, b.Size())), buf)
	return err
}
