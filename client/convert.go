package client

import (
	"context"
	"errors"
	"io"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// ConvertRequest of Convert; Source and Target are required.
type ConvertRequest struct {
	// Source is an image by name or digest.
	Source string
	// Target is the new image's name. An existing name is moved.
	Target string
	// Compression of the layers is gzip, zstd or uncompressed; empty: unchanged.
	Compression string
	// Level of the compression; 0: its default. If it is set, layers that have the compression already
	// are compressed again.
	Level int
	// Format of the documents is oci or docker; empty: unchanged.
	Format string
	// Platform converts only the manifest for os/arch[/variant]; empty: those that are present.
	Platform string
	// AllPlatforms makes the call fail if a platform is missing.
	AllPlatforms bool
	// MaxConcurrent is the number of layers converted in parallel; 0: 2.
	MaxConcurrent int
}

// Convert creates an image with the same files, but with layers or documents in another form. Unchanged parts
// keep their digest, and a failed call leaves nothing. progress is called as by Pull, with the states
// waiting, converting and converted.
func (c *Client) Convert(ctx context.Context, r ConvertRequest, progress func([]Part)) (Image, error) {
	img, err := c.convert(ctx, &cleatapi.ConvertRequest{
		Source: r.Source, Target: r.Target, Compression: r.Compression, CompressionLevel: int32(r.Level), Format: r.Format,
		Platform: r.Platform, AllPlatforms: r.AllPlatforms, MaxConcurrent: uint32(max(r.MaxConcurrent, 0)), Namespace: c.namespace,
	}, progress)
	return img, about("convert image", r.Source, err)
}

// convert follows the call to its end.
func (c *Client) convert(ctx context.Context, req *cleatapi.ConvertRequest, progress func([]Part)) (out Image, err error) {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return out, err
	}
	ended := false
	// A stream that is abandoned before its end is ended by closing the connection.
	defer func() { c.conns.put(conn, ended) }()
	s, err := rpc.OpenServerStream[cleatapi.TransferProgress](ctx, conn.ttrpc, cleatapi.ImagesService, "Convert", req)
	if err != nil {
		return out, err
	}
	done := false
	for {
		m, err := s.Receive(ctx)
		switch {
		case errors.Is(err, io.EOF) && done:
			ended = true
			return out, nil
		case errors.Is(err, io.EOF):
			return out, errNoAnswer()
		case err != nil:
			return out, err
		}
		if progress != nil && len(m.Items) > 0 {
			progress(parts(m.Items))
		}
		if m.Image != nil {
			out, done = image(m.Image), true
		}
	}
}

func parts(items []*cleatapi.TransferItem) []Part {
	out := make([]Part, len(items))
	for i, m := range items {
		out[i] = Part{Digest: m.Digest, MediaType: m.MediaType, State: m.State, Done: m.Done, Total: m.Total}
	}
	return out
}
