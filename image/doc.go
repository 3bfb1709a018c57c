// Package image turns archives into images in a content store, and images into snapshots.
//
// Import reads an OCI image layout or a `docker save` archive, as a tar stream, packed or
// not. Fetch and Layers take an image from a registry, or any other Source, and Push brings
// one there. Unpack makes one committed snapshot a layer, named by the layer's chain ID, so that
// images share what they have in common. ReadConfig, RootFS, Walk and the like read images.
//
// Guarantees: an image's documents are bounded in size, read only if they have the digest
// that names them, and refused if they can be understood in two ways (a manifest that is
// also an index, a media type that contradicts the descriptor's). A layer becomes visible
// only if its unpacked bytes have the digest that the image's configuration states.
//
// The stores come as the small interfaces Content and Snapshots, so that the daemon can
// hand in those of one namespace. Nothing here writes metadata, and nothing an image says
// becomes a label of anything.
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
	// ReaderAt opens a blob, or answers not found.
	ReaderAt(ctx context.Context, d digest.Digest) (Blob, error)
}

// BlobWriter writes one ingest; *content.Writer is one.
type BlobWriter interface {
	io.WriteCloser
	// Commit verifies the ingest and makes it a blob. Already exists is a success too.
	Commit(ctx context.Context, size int64, expected digest.Digest) error
	// Digest returns the digest of what was written so far.
	Digest() digest.Digest
	// Status tells how far it has come, also what was written before it was taken up again.
	Status() content.Status
	// Truncate drops what was written; only 0 is possible as size.
	Truncate(size int64) error
	// Follow returns a reader of the ingest, from its beginning, while it is written.
	Follow() (*content.Follower, error)
}

// Ingester writes blobs.
type Ingester interface {
	// Writer starts an ingest. Already exists if the expected blob is there.
	Writer(ctx context.Context, ref string, opts content.WriterOptions) (BlobWriter, error)
	// Abort drops an ingest.
	Abort(ctx context.Context, ref string) error
}

// Content reads and writes blobs.
type Content interface {
	Provider
	Ingester
}

// Snapshots makes snapshots by name. Its labels are the caller's business.
type Snapshots interface {
	// Exists tells whether there is a committed snapshot called name.
	Exists(ctx context.Context, name string) (bool, error)
	// Prepare makes an active snapshot called key upon the committed one called parent
	// ("" for none) and says how to mount it.
	Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error)
	// Commit puts it on disk and calls it name. Already exists if name is taken.
	Commit(ctx context.Context, name, key string) error
	// Remove removes an active snapshot.
	Remove(ctx context.Context, key string) error
}

// Stacker is a Snapshots whose layers may be filled at the same time.
type Stacker interface {
	Snapshots
	// Layered tells whether one that was prepared upon none can be filled with a layer in the
	// overlay file system's form, to stand upon others when it is committed. userXattr is how
	// opaque directories are marked then.
	Layered() (userXattr, ok bool)
	// CommitUpon is Commit of such a snapshot, upon the committed one called parent.
	CommitUpon(ctx context.Context, name, key, parent string) error
}

// invalidf makes an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}
