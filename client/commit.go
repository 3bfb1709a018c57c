package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
)

// CommitRequest of Commit; Container and Image are required.
type CommitRequest struct {
	Container string
	// Image is the new image's name. An existing name is moved.
	Image string
	// Author and Message are kept in the image's history.
	Author, Message string
	// Changes of the configuration, as in a Dockerfile: "ENV A=B", "CMD ..." and so on.
	Changes []string
	// NoPause lets the container run during the commit; the image then has its files of several moments.
	NoPause bool
	// Compression is gzip, zstd or uncompressed; empty: gzip.
	Compression string
	// Level of the compression; 0: its default.
	Level int
	// Created is the creation time of the image, and the latest time of a file in its new layer;
	// zero: now, and unchanged times. If it is set, the same container gives the same digests.
	Created time.Time
}

// Commit creates an image of a container's changes: its image with one more layer. The container is resumed
// afterwards, even if the call fails, and a failed call leaves nothing.
func (c *Client) Commit(ctx context.Context, r CommitRequest) (Image, error) {
	req := &cleatapi.CommitRequest{
		Container: r.Container, Image: r.Image, Author: r.Author, Message: r.Message, Changes: r.Changes,
		NoPause: r.NoPause, Compression: r.Compression, CompressionLevel: int32(r.Level),
	}
	if !r.Created.IsZero() {
		req.CreatedAt = types.FromTime(r.Created)
	}
	resp, err := call[cleatapi.CommitResponse](ctx, c, cleatapi.ImagesService, "Commit", req)
	if err != nil {
		return Image{}, about("commit container", r.Container, err)
	}
	return image(resp.Image), nil
}
