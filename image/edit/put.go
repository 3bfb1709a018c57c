package edit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/undo"
)

// MakeRef returns a reference for the ingest of a locally created blob, which is never resumed.
func MakeRef() string { return "make-" + rand.Text() + "-1" }

// putDocument stores a document of a size that can be read again, and returns its descriptor.
func putDocument(ctx context.Context, c image.Content, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if len(raw) > image.MaxDocument {
		return d, invalidf("make %s: size %d exceeds the maximum of %d", mediaType, len(raw), image.MaxDocument)
	}
	ref := MakeRef()
	w, err := c.Writer(ctx, ref, content.WriterOptions{Expected: d.Digest, Total: d.Size})
	if errdefs.IsAlreadyExists(err) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("make %s: %w", mediaType, err)
	}
	_, err = w.Write(raw)
	if err == nil {
		err = w.Commit(ctx, d.Size, d.Digest)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, errors.Join(fmt.Errorf("make %s: %w", mediaType, err), w.Close(), undo.Ignore(c.Abort(context.WithoutCancel(ctx), ref), errdefs.ErrNotFound))
	}
	return d, w.Close()
}
