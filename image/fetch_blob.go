package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/internal/ctxio"
	"github.com/cleatproject/cleat/internal/undo"
)

// errCut marks that the bytes of an ingest did not match its digest.
var errCut = errors.New("content does not match its digest")

// blob fetches one blob to the store, resuming an ingest of it. That of a layer, which has an
// arrival, can be followed, and is kept if it fails, unless the disk is full: a pull that cannot be
// resumed must not occupy the space.
func (f *Fetching) blob(ctx context.Context, desc ocispec.Descriptor, a *arrival) error {
	ref := FetchRef(desc.Digest)
	w, err := f.content.Writer(ctx, ref, content.WriterOptions{Expected: desc.Digest, Total: desc.Size})
	switch {
	case errdefs.IsAlreadyExists(err):
		return f.exists(ctx, desc)
	case err != nil:
		return fmt.Errorf("fetch %s: %w", desc.Digest, err)
	}
	if a != nil {
		a.writer = w
		close(a.begun)
	}
	err = f.fill(ctx, w, desc)
	drop := err != nil && (a == nil || errors.Is(err, errCut) || w.Status().Offset == 0 || full(err) || full(context.Cause(ctx)))
	if drop {
		err = errors.Join(err, undo.Ignore(f.content.Abort(context.WithoutCancel(ctx), ref), errdefs.ErrNotFound))
	}
	err = errors.Join(err, w.Close())
	if err == nil {
		f.watch(desc, StateFetched, desc.Size)
	}
	return err
}

// full reports whether a disk, or a limit of one, has no space left.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// exists checks the present blob against the descriptor.
func (f *Fetching) exists(ctx context.Context, desc ocispec.Descriptor) error {
	b, err := f.content.ReaderAt(ctx, desc.Digest)
	if err != nil {
		return err
	}
	size := b.Size()
	if err := b.Close(); err != nil {
		return err
	}
	if size != desc.Size {
		return invalidf("blob %s: %d bytes, %d in its descriptor", desc.Digest, size, desc.Size)
	}
	f.watch(desc, StateExists, size)
	return nil
}

// fill fetches the missing bytes of an ingest and commits it. If the bytes present before turn out not
// to belong to the blob, it is fetched from the beginning, once.
func (f *Fetching) fill(ctx context.Context, w BlobWriter, desc ocispec.Descriptor) error {
	began := w.Status().Offset
	err := f.transfer(ctx, w, desc, began)
	if began > 0 && errors.Is(err, errCut) {
		if err := w.Truncate(0); err != nil {
			return err
		}
		err = f.transfer(ctx, w, desc, 0)
	}
	return err
}

func (f *Fetching) transfer(ctx context.Context, w BlobWriter, desc ocispec.Descriptor, offset int64) (err error) {
	f.watch(desc, StateFetching, offset)
	rc, err := f.source.Fetch(ctx, desc, offset)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	buf := make([]byte, ctxio.BufferSize)
	counted := ctxio.ReaderFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := rc.Read(p)
		offset += int64(n)
		if n > 0 {
			f.watch(desc, StateFetching, offset)
		}
		return n, err
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, counted, buf); err != nil {
		return err
	}
	switch err := w.Commit(ctx, desc.Size, desc.Digest); {
	case err == nil, errdefs.IsAlreadyExists(err):
		return nil
	case errdefs.IsFailedPrecondition(err):
		return fmt.Errorf("fetch %s: %w: the registry is wrong about its content, or it was changed in transit: %w", desc.Digest, errCut, err)
	default:
		return err
	}
}
