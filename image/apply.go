package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/mount"
)

// ApplyOptions change how layers are applied. The zero value is right for the layers of OCI and Docker.
type ApplyOptions struct {
	// Helpers decompress the formats that they support.
	Helpers []archive.Helper
	// Processors decode layers of the media types they accept, before all else.
	Processors []archive.Processor
	// Payloads are for processors, by their names.
	Payloads map[string][]byte
	// Limits bound the unpacked size of a layer.
	Limits Limits
	// Sync syncs the file system that the layer is applied to.
	Sync bool
}

// check returns not implemented if layers of a media type cannot be applied.
func (o ApplyOptions) check(mediaType string) error {
	if IsLayer(archive.Processed(o.Processors, mediaType)) {
		return nil
	}
	return fmt.Errorf("layers of type %q: no stream processor configured: %w", mediaType, errdefs.ErrNotImplemented)
}

// ApplyLayer applies a layer to the file system of the mounts, and returns the descriptor of the
// uncompressed layer. Lower directories of an overlay are not mounted for it, and neither is a
// bind. After an error a part of the layer may have been applied: discard the snapshot.
func ApplyLayer(ctx context.Context, p Provider, desc ocispec.Descriptor, mounts []mount.Mount, opts ApplyOptions) (ocispec.Descriptor, error) {
	plain, err := applyLayer(ctx, p, desc, mounts, opts)
	if err != nil {
		return plain, fmt.Errorf("apply layer %s: %w", desc.Digest, err)
	}
	return plain, nil
}

func applyLayer(ctx context.Context, p Provider, desc ocispec.Descriptor, mounts []mount.Mount, opts ApplyOptions) (plain ocispec.Descriptor, err error) {
	if len(mounts) == 0 {
		return plain, invalidf("no mounts to apply the layer to")
	}
	if err := opts.check(desc.MediaType); err != nil {
		return plain, err
	}
	blob, err := p.ReaderAt(ctx, desc.Digest)
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	root, how, done, err := place(mounts)
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, done()) }()
	plain, _, err = applyStream(ctx, openStream(blob), ocispec.Descriptor{MediaType: desc.MediaType, Size: blob.Size()}, digest.Canonical, root, how, opts)
	if err == nil && opts.Sync {
		err = syncTree(root)
	}
	return plain, err
}

// layerStream reads the compressed bytes of a layer, of a local blob or of an ingest that is being written.
type layerStream interface {
	io.Reader
	// Stop ends a blocked Read. It may be called concurrently with one.
	Stop()
}

// openStream reads a local blob from its beginning, as a file if it is one.
func openStream(b Blob) layerStream {
	all := blobStream{io.NewSectionReader(b, 0, b.Size())}
	if f, ok := b.(opener); ok {
		return fileStream{all, f}
	}
	return all
}

type blobStream struct{ io.Reader }

// Stop implements layerStream; reads of a local blob do not block.
func (blobStream) Stop() {}

// opener is a blob that is a file, as blobs of the content store are.
type opener interface{ Open() (*os.File, error) }

type fileStream struct {
	blobStream
	opener
}

var _ archive.File = fileStream{}

// applyStream applies a layer, of the descriptor's media type and size, to a directory, and returns the
// descriptor of the uncompressed layer.
func applyStream(
	ctx context.Context, from layerStream, desc ocispec.Descriptor, algorithm digest.Algorithm, root string, how archive.Options, opts ApplyOptions,
) (plain ocispec.Descriptor, result archive.Result, err error) {
	packed, err := archive.Process(ctx, opts.Processors, desc.MediaType, from, opts.Payloads)
	if err != nil {
		return plain, result, err
	}
	defer func() { err = errors.Join(err, packed.Close()) }()
	tar, err := archive.Decompress(ctx, packed, opts.Helpers...)
	if err != nil {
		return plain, result, err
	}
	defer func() { err = errors.Join(err, tar.Close()) }()
	verifier := algorithm.Digester()
	size := new(counter)
	ahead := archive.Ahead(io.TeeReader(tar, io.MultiWriter(verifier.Hash(), size)))
	defer func() { err = errors.Join(err, ahead.Close()) }()
	opts.Limits.bound(&how, desc.Size)
	defer from.Stop() // before waiting for its readers
	if result, err = archive.Apply(ctx, root, ahead, how); err != nil {
		return plain, result, opts.Limits.explain(err, desc.Size)
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: verifier.Digest(), Size: int64(*size),
	}, result, nil
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// syncTree syncs the file system of a directory.
func syncTree(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
