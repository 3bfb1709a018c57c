package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/containerd/errdefs"
)

// importChunk is how many bytes of an archive one message carries.
const importChunk = 1 << 20

// Image is an image as the daemon has it.
type Image struct {
	Name, Digest, MediaType string
	// Size is the sum of the blobs that are present for the platform, in bytes.
	Size      int64
	CreatedAt time.Time
	Labels    map[string]string
	// Platforms present, as os/arch[/variant].
	Platforms []string
}

// ImageDetails is an image with its documents, as they are stored.
type ImageDetails struct {
	Image
	Manifest, Config []byte
}

// ImportOptions of ImportImage; the zero value imports what the archive names and unpacks it for
// this host.
type ImportOptions struct {
	// Name for an image that carries none in its archive.
	Name string
	// Platform to unpack, os/arch[/variant]; empty: this host's.
	Platform string
	// Snapshotter to unpack to; empty: the daemon's default.
	Snapshotter string
	// NoUnpack only stores.
	NoUnpack bool
}

// ImportImage sends an OCI layout or `docker save` archive, plain or compressed, and returns the
// images it held. An archive that is not one is errdefs.ErrInvalidArgument; nothing of it stays.
// ImportImage reads r to its end but does not close it.
func (c *Client) ImportImage(ctx context.Context, r io.Reader, opts ImportOptions) ([]Image, error) {
	images, err := c.importImage(ctx, r, opts)
	return images, about("import image", opts.Name, err)
}

func (c *Client) importImage(ctx context.Context, r io.Reader, opts ImportOptions) ([]Image, error) {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return nil, err
	}
	// A stream that was left before its end would haunt the connection, so only success keeps it.
	done := false
	defer func() { c.conns.put(conn, done) }()
	s, err := rpc.OpenClientStream[cleatapi.ImportResponse](
		ctx, conn.ttrpc, cleatapi.ImagesService, "Import")
	if err != nil {
		return nil, err
	}
	err = s.Send(ctx, &cleatapi.ImportRequest{Options: &cleatapi.ImportOptions{
		Name: opts.Name, Platform: opts.Platform, Snapshotter: opts.Snapshotter, NoUnpack: opts.NoUnpack,
		Namespace: c.namespace,
	}})
	if err == nil {
		err = sendArchive(ctx, s, r)
	}
	var local *archiveError
	if errors.As(err, &local) {
		return nil, err
	}
	// Where sending went wrong the daemon has ended the stream, and its answer says why.
	resp, ferr := s.Finish(ctx)
	if ferr != nil {
		return nil, worse(err, ferr)
	}
	done = true
	return images(resp.Images), nil
}

// worse picks the error that says more of a stream that the daemon ended.
func worse(send, finish error) error {
	if send == nil || (!errdefs.IsUnavailable(finish) && !errors.Is(finish, io.EOF)) {
		return finish
	}
	return send
}

// archiveError is a failure to read the archive, in which the daemon has no part.
type archiveError struct{ err error }

func (e *archiveError) Error() string { return "read archive: " + e.err.Error() }
func (e *archiveError) Unwrap() error { return e.err }

func sendArchive(ctx context.Context, s *rpc.Sender[cleatapi.ImportResponse, *cleatapi.ImportResponse], r io.Reader) error {
	buf := make([]byte, importChunk)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if serr := s.Send(ctx, &cleatapi.ImportRequest{Data: buf[:n]}); serr != nil {
				return serr
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return &archiveError{err}
		case ctx.Err() != nil:
			return fmt.Errorf("send archive: %w", ctx.Err())
		}
	}
}

// Images lists the namespace's images; filters are in containerd's syntax.
func (c *Client) Images(ctx context.Context, filters ...string) ([]Image, error) {
	resp, err := query[cleatapi.ListImagesResponse](ctx, c, cleatapi.ImagesService, "List",
		&cleatapi.ListImagesRequest{Filters: filters})
	if err != nil {
		return nil, about("list images", "", err)
	}
	return images(resp.Images), nil
}

// Inspect returns an image, by name or digest, with the manifest and configuration for platform
// (empty: this host's). One that is not there is errdefs.ErrNotFound.
func (c *Client) Inspect(ctx context.Context, name, platform string) (ImageDetails, error) {
	resp, err := query[cleatapi.InspectImageResponse](ctx, c, cleatapi.ImagesService, "Inspect",
		&cleatapi.InspectImageRequest{Name: name, Platform: platform})
	if err != nil {
		return ImageDetails{}, about("inspect image", name, err)
	}
	d := ImageDetails{Manifest: resp.Manifest, Config: resp.Config}
	if resp.Image != nil {
		d.Image = image(resp.Image)
	}
	return d, nil
}

// RemoveImage deletes the name, and what nothing else uses of its content. One that is not there is
// errdefs.ErrNotFound.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	_, err := call[cleatapi.RemoveImageResponse](ctx, c, cleatapi.ImagesService, "Remove",
		&cleatapi.RemoveImageRequest{Name: name})
	return about("remove image", name, err)
}

func images(ms []*cleatapi.Image) []Image {
	out := make([]Image, 0, len(ms))
	for _, m := range ms {
		out = append(out, image(m))
	}
	return out
}

func image(m *cleatapi.Image) Image {
	return Image{
		Name: m.Name, Digest: m.Digest, MediaType: m.MediaType, Size: m.Size_,
		CreatedAt: m.CreatedAt.Time(), Labels: m.Labels, Platforms: m.Platforms,
	}
}
