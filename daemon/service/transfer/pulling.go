package transfer

import (
	"context"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
)

// labelSource is the label, with the registry's host at its end, that says in which repository a blob
// was found, as published. A push to another repository there has it taken from that one.
const labelSource = "containerd.io/distribution.source."

// pulling is the content of a namespace as a pull writes to it: a blob is fetched by one pull at a time,
// and those that wait for it find it there.
type pulling struct {
	*blobs.View
	locks  *keylock.Locks[string]
	hold   *metadata.Hold
	labels map[string]string
}

var _ image.Content = (*pulling)(nil)

// Writer implements image.Ingester. It waits while another pull writes the same.
func (p *pulling) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	unlock, err := p.locks.Lock(ctx, "content\x00"+p.Namespace()+"\x00"+ref)
	if err != nil {
		return nil, err
	}
	p.hold.Content(opts.Expected.String())
	w, err := p.View.Writer(ctx, ref, opts)
	if errdefs.IsFailedPrecondition(err) { // another pull began it for another size
		if err = undo.Ignore(p.Abort(ctx, ref), errdefs.ErrNotFound); err == nil {
			w, err = p.View.Writer(ctx, ref, opts)
		}
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return &pullWriter{BlobWriter: w, pulling: p, unlock: sync.OnceFunc(unlock)}, nil
}

// pullWriter writes one blob of a pull.
type pullWriter struct {
	*blobs.BlobWriter
	pulling *pulling
	unlock  func()
}

// Commit implements image.BlobWriter.
func (w *pullWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	_, err := w.CommitWhole(ctx, size, expected, w.pulling.labels)
	return err
}

// Close implements image.BlobWriter, and lets the next pull have the blob.
func (w *pullWriter) Close() error {
	defer w.unlock()
	return w.BlobWriter.Close()
}
