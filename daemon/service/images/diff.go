package images

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
)

// labelUncompressed on a compressed layer is the digest of what it is uncompressed, as published.
const labelUncompressed = "containerd.io/uncompressed"

// Apply applies a layer that the namespace sees to mounts, and returns the descriptor of what it is
// uncompressed. Payloads are for stream processors, by their names.
func (s *Store) Apply(
	ctx context.Context, namespace string, layer ocispec.Descriptor, mounts []mount.Mount, payloads map[string][]byte, sync bool,
) (ocispec.Descriptor, error) {
	hold := s.db.Hold(namespace)
	defer hold.Release()
	hold.Content(layer.Digest.String())
	return image.ApplyLayer(ctx, s.blobs.In(namespace), layer, mounts, image.ApplyOptions{
		Helpers: s.apply.Helpers, Processors: s.apply.Processors, Payloads: payloads, Limits: s.apply.Limits, Sync: sync,
	})
}

// DiffRequest asks for a layer with the difference of two snapshots.
type DiffRequest struct {
	Left, Right []mount.Mount
	// MediaType is the layer's; empty is OCI's with gzip.
	MediaType string
	// Ref is the ingest it is written to, from its beginning; empty is one of its own.
	Ref    string
	Labels map[string]string
	// Level of the compression; 0 is its default.
	Level int
	// Owners are those that the right side's files were given; nil for none.
	Owners *snapshots.Owners
	// Latest, where it is set, takes the place of later times.
	Latest time.Time
	// Live says that the right side may be written to concurrently.
	Live bool
}

// compressionOf returns the compression of the layers of a media type.
func compressionOf(mediaType string) (archive.Compression, error) {
	if !image.IsLayer(mediaType) {
		return "", fmt.Errorf("diff: media type %q is not that of a layer: %w", mediaType, errdefs.ErrNotImplemented)
	}
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		return archive.Gzip, nil
	case strings.HasSuffix(mediaType, "zstd"):
		return archive.Zstd, nil
	default:
		return archive.Uncompressed, nil
	}
}

// Diff writes the difference of two snapshots as a layer into the namespace's content. One that is
// there already is a success too. After an error there is no ingest.
func (s *Store) Diff(ctx context.Context, namespace string, req DiffRequest) (ocispec.Descriptor, error) {
	hold := s.db.Hold(namespace)
	defer hold.Release()
	layer, err := s.DiffHeld(ctx, hold, namespace, req)
	return layer.Descriptor, err
}

// Layer is a layer that was written.
type Layer struct {
	ocispec.Descriptor
	// Plain is the digest of the uncompressed layer.
	Plain digest.Digest
}

// DiffHeld is Diff with a hold of the caller, which keeps the layer after the call.
func (s *Store) DiffHeld(ctx context.Context, hold *metadata.Hold, namespace string, req DiffRequest) (layer Layer, err error) {
	req.MediaType = cmp.Or(req.MediaType, ocispec.MediaTypeImageLayerGzip)
	compression, err := compressionOf(req.MediaType)
	if err != nil {
		return layer, err
	}
	w, err := s.blobs.In(namespace).Writer(ctx, cmp.Or(req.Ref, "diff-"+rand.Text()), content.WriterOptions{})
	if err != nil {
		return layer, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Discard())
			return
		}
		err = w.Close()
	}()
	if err := w.Truncate(0); err != nil {
		return layer, err
	}
	plain, err := writeDiff(ctx, w, req, compression)
	if err != nil {
		return layer, err
	}
	d := w.Digest()
	hold.Content(d.String())
	labels := make(map[string]string, len(req.Labels)+1)
	for k, v := range req.Labels {
		labels[k] = v
	}
	if compression != archive.Uncompressed {
		labels[labelUncompressed] = plain.String()
	}
	blob, err := w.CommitLabelled(ctx, 0, d, labels)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		blob, err = s.labelMissing(ctx, namespace, d, labels)
	}
	return Layer{ocispec.Descriptor{MediaType: req.MediaType, Digest: d, Size: blob.Size}, plain}, err
}

// writeDiff writes the layer and returns the digest of what it is uncompressed.
func writeDiff(ctx context.Context, w io.Writer, req DiffRequest, compression archive.Compression) (digest.Digest, error) {
	zw, err := archive.CompressLevel(w, compression, req.Level)
	if err != nil {
		return "", err
	}
	plain := digest.Canonical.Digester()
	opts := archive.DiffOptions{Latest: req.Latest, Live: req.Live}
	if req.Owners != nil {
		opts.Owners = req.Owners.Back
	}
	err = image.Diff(ctx, io.MultiWriter(zw, plain.Hash()), req.Left, req.Right, opts)
	// Closed either way: it has goroutines.
	return plain.Digest(), errors.Join(err, zw.Close())
}

// labelMissing gives a blob that was there before the labels it does not have.
func (s *Store) labelMissing(ctx context.Context, namespace string, d digest.Digest, labels map[string]string) (blob metadata.Blob, err error) {
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		blobs := tx.Content(namespace)
		if blob, err = blobs.Get(d); err != nil {
			return err
		}
		var fields []string
		v := metadata.Blob{Digest: d, Labels: make(map[string]string)}
		for key, value := range labels {
			if _, ok := blob.Labels[key]; !ok {
				v.Labels[key] = value
				fields = append(fields, "labels."+key)
			}
		}
		if len(fields) > 0 {
			blob, err = blobs.Update(v, fields...)
		}
		return err
	})
	return blob, err
}
