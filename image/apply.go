package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/mount"
)

// ApplyOptions change how layers are applied. The zero value is right for the layers of OCI and Docker.
type ApplyOptions struct {
	// Helpers decompress, where there are any for a layer's format.
	Helpers []archive.Helper
	// Processors decode layers of the media types they accept, before all else.
	Processors []archive.Processor
	// Payloads are for processors, by their names.
	Payloads map[string][]byte
	// Limits bound what a layer may come to.
	Limits Limits
	// Sync puts the file system that the layer is applied to on disk.
	Sync bool
}

// check tells whether layers of a media type can be applied: not implemented if not.
func (o ApplyOptions) check(mediaType string) error {
	if IsLayer(archive.Processed(o.Processors, mediaType)) {
		return nil
	}
	return fmt.Errorf("layers of the type %q are not supported: configure a stream processor for them: %w", mediaType, errdefs.ErrNotImplemented)
}

// ApplyLayer applies a layer to what the mounts show, and returns the descriptor of what it is
// uncompressed. What is below an overlay's upper directory is not attached for it, and neither is a
// bind. After an error a part of the layer may have been applied: throw the snapshot away.
func ApplyLayer(ctx context.Context, p Provider, desc ocispec.Descriptor, mounts []mount.Mount, opts ApplyOptions) (ocispec.Descriptor, error) {
	plain, err := applyLayer(ctx, p, desc, mounts, opts)
	if err != nil {
		return plain, fmt.Errorf("apply layer %s: %w", desc.Digest, err)
	}
	return plain, nil
}

func applyLayer(ctx context.Context, p Provider, desc ocispec.Descriptor, mounts []mount.Mount, opts ApplyOptions) (plain ocispec.Descriptor, err error) {
	if len(mounts) == 0 {
		return plain, invalidf("there are no mounts to apply it to")
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
	plain, _, err = applyStream(ctx, whole(blob), ocispec.Descriptor{MediaType: desc.MediaType, Size: blob.Size()}, digest.Canonical, root, how, opts)
	if err == nil && opts.Sync {
		err = syncTree(root)
	}
	return plain, err
}

// coded are the bytes of a layer, all here or on their way.
type coded interface {
	io.Reader
	// Stop ends a Read that waits. It may run beside one.
	Stop()
}

// whole is a blob that is here, to be read from its beginning, as a file where it is one.
func whole(b Blob) coded {
	all := wholeBlob{io.NewSectionReader(b, 0, b.Size())}
	if f, ok := b.(opener); ok {
		return wholeFile{all, f}
	}
	return all
}

type wholeBlob struct{ io.Reader }

// Stop implements coded: nothing has to be waited for.
func (wholeBlob) Stop() {}

// opener is a blob that is a file, as those of the content store are.
type opener interface{ Open() (*os.File, error) }

type wholeFile struct {
	wholeBlob
	opener
}

var _ archive.File = wholeFile{}

// applyStream applies a layer, of the descriptor's media type and size, to a directory, and returns the descriptor of what it
// is uncompressed.
func applyStream(
	ctx context.Context, from coded, desc ocispec.Descriptor, algorithm digest.Algorithm, root string, how archive.Options, opts ApplyOptions,
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
	defer from.Stop() // before those who read it are waited for
	if result, err = archive.Apply(ctx, root, ahead, how); err != nil {
		return plain, result, opts.Limits.explain(err, desc.Size)
	}
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: verifier.Digest(), Size: int64(*size),
	}, result, nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// syncTree puts the file system of a directory on disk.
func syncTree(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err.(syscall.Errno)}
	}
	return nil
}
