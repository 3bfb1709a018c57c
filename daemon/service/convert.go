package service

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// ConvertImage is called by daemon/api/native/images.go: an image with the same files in another form. The work
// is image/convert.go's; what a failed one made is removed.
func (s *Service) ConvertImage(ctx context.Context, namespace string, req *cleatapi.ConvertRequest, send func(*cleatapi.TransferProgress) error) (err error) {
	name, err := newName(req.Target)
	if err != nil {
		return fmt.Errorf("convert image %s: %w", req.Source, err)
	}
	opts, err := s.planConvert(req)
	if err != nil {
		return fmt.Errorf("convert image %s: %w", req.Source, err)
	}
	hold := s.DB.Hold(namespace)
	began := false
	defer func() { s.letGo(ctx, hold, began, err) }()
	img, err := s.resolve(ctx, namespace, req.Source)
	if err != nil {
		return err
	}
	hold.Content(img.Target.Digest.String())
	began = true
	return transferring(ctx, send, func(ctx context.Context, p *progress) (*cleatapi.Image, error) {
		opts.Watch = p.Part
		target, err := image.Convert(ctx, ingester{s.Blobs(namespace), hold}, img.Target, opts)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.Name, err)
		}
		out, err := s.recordImage(ctx, namespace, image.Imported{Name: name, Target: target})
		if err != nil {
			return nil, fmt.Errorf("convert image %s: %w", img.Name, err)
		}
		return out, nil
	})
}

// planConvert checks the request itself.
func (s *Service) planConvert(req *cleatapi.ConvertRequest) (opts image.ConvertOptions, err error) {
	opts = image.ConvertOptions{
		Level: int(req.CompressionLevel), All: req.AllPlatforms, Parallel: int(min(req.MaxConcurrent, 1<<10)),
		Helpers: s.Helpers, Format: image.Format(req.Format),
	}
	if opts.Format != "" && opts.Format != image.FormatOCI && opts.Format != image.FormatDocker {
		return opts, fmt.Errorf("format %q: want oci or docker: %w", req.Format, errdefs.ErrInvalidArgument)
	}
	if req.Platform != "" && req.AllPlatforms {
		return opts, fmt.Errorf("platform and all-platforms exclude each other: %w", errdefs.ErrInvalidArgument)
	}
	if opts.Platform, err = parsePlatform(req.Platform); err != nil {
		return opts, err
	}
	if req.Compression == "" {
		if req.CompressionLevel != 0 {
			return opts, fmt.Errorf("compression level %d: of which compression? Give one as well: %w", req.CompressionLevel, errdefs.ErrInvalidArgument)
		}
		return opts, nil
	}
	c, err := parseCompression(req.Compression, opts.Level)
	opts.Compression = &c
	return opts, err
}
