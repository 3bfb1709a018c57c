// Package image fetches and pushes images, and turns them into snapshots. Package layout below it reads and writes
// archives of images; package edit makes images of images.
//
// Fetch and Layers fetch an image from a registry, or any other Source, and Push pushes one there. Unpack creates one committed snapshot per layer, named by the layer's chain ID, so that
// images share common layers. ReadConfig, RootFS, Walk and the like read images.
//
// Guarantees: an image's documents are bounded in size, read only if they have the digest
// that names them, and refused if they are ambiguous (a manifest that is
// also an index, a media type that contradicts the descriptor's). A layer becomes visible
// only if its unpacked bytes have the digest that the image's configuration states.
//
// The stores are passed as the small interfaces Content and Snapshots, so that the daemon can
// pass those of one namespace. This package writes no metadata, and no text of an image
// becomes a label.
package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/mount"
)

// Blob is an open blob.
type Blob interface {
	io.ReaderAt
	io.Closer
	// Size returns the length in bytes.
	Size() int64
}

// Provider opens blobs.
type Provider interface {
	// ReaderAt opens a blob, or returns not found.
	ReaderAt(ctx context.Context, d digest.Digest) (Blob, error)
}

// BlobWriter writes one ingest; *content.Writer is one.
type BlobWriter interface {
	io.WriteCloser
	// Commit verifies the ingest and makes it a blob. Already exists counts as success.
	Commit(ctx context.Context, size int64, expected digest.Digest) error
	// Digest returns the digest of the bytes written so far.
	Digest() digest.Digest
	// Status returns the progress, including bytes written before the ingest was resumed.
	Status() content.Status
	// Truncate discards the bytes written; size must be 0.
	Truncate(size int64) error
	// Follow returns a reader of the ingest, from its beginning, while it is being written.
	Follow() (*content.Follower, error)
}

// Ingester writes blobs.
type Ingester interface {
	// Writer starts an ingest. Already exists if the expected blob is present.
	Writer(ctx context.Context, ref string, opts content.WriterOptions) (BlobWriter, error)
	// Abort drops an ingest.
	Abort(ctx context.Context, ref string) error
}

// Content reads and writes blobs.
type Content interface {
	Provider
	Ingester
}

// Snapshots creates snapshots by name. Their labels are set by the caller.
type Snapshots interface {
	// Exists reports whether there is a committed snapshot called name.
	Exists(ctx context.Context, name string) (bool, error)
	// Prepare creates an active snapshot called key on the committed one called parent
	// ("" for none) and returns its mounts.
	Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error)
	// Commit syncs it and names it name. Already exists if name is taken.
	Commit(ctx context.Context, name, key string) error
	// Remove removes an active snapshot.
	Remove(ctx context.Context, key string) error
}

// Stacker is a Snapshots whose layers may be filled at the same time.
type Stacker interface {
	Snapshots
	// Layered reports whether a snapshot that was prepared without a parent can be filled with a layer
	// in the overlay file system's form, and get its parent when it is committed. userXattr reports how
	// opaque directories are marked then.
	Layered() (userXattr, ok bool)
	// CommitOn is Commit of such a snapshot, on the committed one called parent.
	CommitOn(ctx context.Context, name, key, parent string) error
}

// invalidf makes an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}
