package layout

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/ctxio"
)

// archiveIndex returns the index of the whole archive: an OCI layout's own, or a new one.
func (im *importer) archiveIndex(ctx context.Context, images []Imported) (ocispec.Descriptor, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	seen := make(map[digest.Digest]bool)
	for _, img := range images {
		if !seen[img.Target.Digest] {
			seen[img.Target.Digest] = true
			index.Manifests = append(index.Manifests, img.Target)
		}
	}
	raw := im.index
	if raw == nil || !im.layout {
		var err error
		if raw, err = json.Marshal(index); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("make index: %w", err)
		}
	}
	d := ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := im.store(ctx, "made/"+d.Digest.String(), d.Digest, d.Size, bytes.NewReader(raw)); err != nil {
		return d, fmt.Errorf("store index: %w", err)
	}
	return d, nil
}

// packed returns a layer compressed with gzip if that is requested and it is not compressed. The result
// is deterministic.
func (im *importer) packed(ctx context.Context, f savedFile) (_ savedFile, err error) {
	if !im.compress || f.layerType() != ocispec.MediaTypeImageLayer {
		return f, nil
	}
	plain, err := im.content.ReaderAt(ctx, f.digest)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	im.refs++
	ref := fmt.Sprint(im.refPrefix, im.refs)
	w, err := im.content.Writer(ctx, ref, content.WriterOptions{})
	if err != nil {
		return f, err
	}
	out := savedFile{magic: []byte{0x1f, 0x8b, 8, 0}}
	if err := im.pack(ctx, w, plain, &out); err != nil {
		return f, errors.Join(fmt.Errorf("pack layer %s: %w", f.digest, err), w.Close(), im.content.Abort(context.WithoutCancel(ctx), ref))
	}
	return out, w.Close()
}

func (im *importer) pack(ctx context.Context, w image.BlobWriter, plain image.Blob, out *savedFile) error {
	zw := gzip.NewWriter(w)
	if _, err := io.CopyBuffer(struct{ io.Writer }{zw}, ctxio.Reader(ctx, io.NewSectionReader(plain, 0, plain.Size())), im.buf); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	out.digest, out.size = w.Digest(), w.Status().Offset
	if err := w.Commit(ctx, out.size, out.digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return nil
}
