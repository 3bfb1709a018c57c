package edit

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/ctxio"
	"github.com/cleatproject/cleat/internal/undo"
)

// defaultConverting is how many layers are converted at the same time; each uses several processors.
const defaultConverting = 2

// convertedLayer is a layer that is being converted to another compression.
type convertedLayer struct {
	from   ocispec.Descriptor
	diffID digest.Digest // of its unpacked bytes, by the configuration
	to     archive.Compression

	digest digest.Digest
	size   int64
}

// convertLayers converts the layers, several at the same time.
func (v *conversion) convertLayers(ctx context.Context) error {
	atOnce := v.opts.Parallel
	if atOnce <= 0 {
		atOnce = defaultConverting
	}
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, l := range v.order {
		v.opts.Watch(l.from, image.StateWaiting, 0)
	}
	for _, l := range v.order {
		if working.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := v.convertLayer(working, l); err != nil {
				return fmt.Errorf("layer %s: %w", l.from.Digest, err)
			}
			v.opts.Watch(l.from, StateConverted, l.from.Size)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (v *conversion) convertLayer(ctx context.Context, l *convertedLayer) (err error) {
	blob, err := v.content.ReaderAt(ctx, l.from.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	opts := content.WriterOptions{}
	if l.to == archive.Uncompressed {
		opts.Expected = l.diffID
	}
	ref := MakeRef()
	w, err := v.content.Writer(ctx, ref, opts)
	if errdefs.IsAlreadyExists(err) && opts.Expected != "" {
		return v.found(ctx, l)
	}
	if err != nil {
		return err
	}
	if err := v.recompress(ctx, w, blob, l); err != nil {
		return errors.Join(err, w.Close(), undo.Ignore(v.content.Abort(context.WithoutCancel(ctx), ref), errdefs.ErrNotFound))
	}
	return w.Close()
}

// found uses the unpacked layer that is already present.
func (v *conversion) found(ctx context.Context, l *convertedLayer) error {
	b, err := v.content.ReaderAt(ctx, l.diffID)
	if err != nil {
		return err
	}
	l.digest, l.size = l.diffID, b.Size()
	return b.Close()
}

// recompress writes a layer's blob in its other form, and verifies its unpacked bytes.
func (v *conversion) recompress(ctx context.Context, w image.BlobWriter, blob image.Blob, l *convertedLayer) (err error) {
	var read int64
	in := ctxio.ReaderFunc(func(p []byte) (int, error) {
		n, err := blob.ReadAt(p, read)
		read += int64(n)
		v.opts.Watch(l.from, StateConverting, read)
		return n, err
	})
	plain, err := archive.Decompress(ctx, in, v.opts.Helpers...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	zw, err := archive.CompressLevel(w, l.to, v.opts.Level)
	if err != nil {
		return err
	}
	sum := l.diffID.Algorithm().Digester()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(zw, sum.Hash())}, ctxio.Reader(ctx, plain), make([]byte, ctxio.BufferSize))
	// Closed in either case: it has goroutines.
	if err = errors.Join(err, zw.Close()); err != nil {
		return err
	}
	if got := sum.Digest(); got != l.diffID {
		return invalidf("unpacked digest %s, expected %s by the image's configuration", got, l.diffID)
	}
	l.digest, l.size = w.Digest(), w.Status().Offset
	if err := w.Commit(ctx, l.size, l.digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return nil
}
