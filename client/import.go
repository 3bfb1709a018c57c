package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// ImportOptions of ImportImage; the zero value imports all names of the archive and unpacks it for
// this host.
type ImportOptions struct {
	// Name for an image without a name in its archive.
	Name string
	// Platform to unpack, os/arch[/variant]; empty: this host's.
	Platform string
	// Snapshotter to unpack to; empty: the daemon's default.
	Snapshotter string
	// NoUnpack stores the image without unpacking it.
	NoUnpack bool
	// AllPlatforms makes the call fail if the archive does not have all platforms of its images.
	AllPlatforms bool
}

// ImportImage imports an OCI layout or `docker save` archive, plain or compressed, and returns its
// images. An invalid archive is errdefs.ErrInvalidArgument; nothing of it is kept.
//
// ImportImage reads r to its end, as fast as the daemon accepts it, but does not close it. A regular
// file that nothing was read from is read by the daemon. If r is an *os.File a blocked read
// is interrupted when the daemon refuses or ctx ends; a read of any other reader blocks the call.
func (c *Client) ImportImage(ctx context.Context, r io.Reader, opts ImportOptions) ([]Image, error) {
	to := &cleatapi.ImageStore{
		Platform: opts.Platform, Snapshotter: opts.Snapshotter, NoUnpack: opts.NoUnpack, AllPlatforms: opts.AllPlatforms,
	}
	if opts.Name != "" {
		to.Names = []string{opts.Name}
	}
	if path := regularPath(r); path != "" {
		images, err := c.importPath(ctx, path, to)
		if !errdefs.IsNotFound(err) && ReasonOf(err) != ReasonPolicyDenied {
			return images, about("import image", opts.Name, err)
		}
		// The daemon has other mounts than this program, and not this file, or may not read files for this user.
	}
	images, err := c.importPiped(ctx, r, to)
	return images, about("import image", opts.Name, err)
}

// importPath requests the import of a file by its path.
func (c *Client) importPath(ctx context.Context, path string, to *cleatapi.ImageStore) ([]Image, error) {
	t, err := c.transfer(ctx, transfer{source: archiveEnd(&cleatapi.ArchiveFile{Path: path}), destination: storeEnd(to)})
	if err != nil {
		return nil, err
	}
	return c.saved(ctx, t)
}

// importPiped sends r through a FIFO: a stream of ttrpc has no flow control, and breaks if a disk
// is slower than the archive.
func (c *Client) importPiped(ctx context.Context, r io.Reader, to *cleatapi.ImageStore) (_ []Image, err error) {
	pipe, err := stdio.NewPipe(c.StdioRoot())
	if err != nil {
		return nil, err
	}
	// After the end of the call: Close must not run before the daemon has returned.
	defer func() {
		if cerr := pipe.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close pipe: %w", cerr)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sendCtx, stop := context.WithCancel(ctx)
	defer stop()
	broken := make(chan error, 1)
	go func() {
		err := pipe.Send(sendCtx, r)
		if errors.Is(err, syscall.EPIPE) || sendCtx.Err() != nil {
			err = nil // the daemon's error is more precise
		}
		if err != nil {
			cancel() // the daemon must not mistake a partial archive for a complete one
		}
		broken <- err
	}()
	images, err := c.importPath(ctx, pipe.Path, to)
	stop()
	if berr := <-broken; berr != nil {
		return nil, fmt.Errorf("send archive: %w", berr)
	}
	return images, err
}

// regularPath returns the path of the regular file that r is, if nothing was read from it; "" for
// any other reader.
func regularPath(r io.Reader) string {
	f, ok := r.(*os.File)
	if !ok {
		return ""
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return ""
	}
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return ""
	}
	// The path of standard input means another file in another program.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	named, err := os.Stat(path)
	if err != nil || !os.SameFile(info, named) {
		return "" // it was removed or renamed
	}
	return path
}
