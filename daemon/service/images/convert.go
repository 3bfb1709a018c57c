package images

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/edit"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// ConvertWatch is called when a part of an image has been converted further, in bytes; it may be called concurrently.
type ConvertWatch = func(desc ocispec.Descriptor, state image.State, done int64)

// Convert is called by daemon/api/native/images.go: an image with the same files in another form. The work
// is image/edit/convert.go's; what a failed one made is removed.
func (s *Store) Convert(ctx context.Context, namespace string, req *cleatapi.ConvertRequest, watch ConvertWatch) (_ *cleatapi.Image, err error) {
	name, err := NewName(req.Target)
	if err != nil {
		return nil, fmt.Errorf("convert image %s: %w", req.Source, err)
	}
	opts, err := s.planConvert(req)
	if err != nil {
		return nil, fmt.Errorf("convert image %s: %w", req.Source, err)
	}
	hold := s.db.Hold(namespace)
	began := false
	defer func() { s.Release(ctx, hold, began, err) }()
	img, err := s.Resolve(ctx, namespace, req.Source)
	if err != nil {
		return nil, err
	}
	hold.Content(img.Target.Digest.String())
	began = true
	opts.Watch = watch
	target, err := edit.Convert(ctx, s.Content(namespace, hold), img.Target, opts)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", img.Name, err)
	}
	out, err := s.Record(ctx, namespace, layout.Imported{Name: name, Target: target})
	if err != nil {
		return nil, fmt.Errorf("convert image %s: %w", img.Name, err)
	}
	return out, nil
}

// planConvert checks the request itself.
func (s *Store) planConvert(req *cleatapi.ConvertRequest) (opts edit.ConvertOptions, err error) {
	opts = edit.ConvertOptions{
		Level: int(req.CompressionLevel), All: req.AllPlatforms, Parallel: int(min(req.MaxConcurrent, 1<<10)),
		Helpers: s.apply.Helpers, Format: image.Format(req.Format),
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
	c, err := ParseCompression(req.Compression, opts.Level)
	opts.Compression = &c
	return opts, err
}

// NewName returns the full form of the name for a new image. A name by digest is errdefs.ErrInvalidArgument.
func NewName(name string) (string, error) {
	ref, err := registry.Parse(name)
	if err != nil {
		return "", err
	}
	if ref.Digest != "" {
		return "", fmt.Errorf("the new name %s is a digest, want a tag: %w", ref, errdefs.ErrInvalidArgument)
	}
	return ref.String(), nil
}

// ParseCompression reads the name of a compression and checks its level.
func ParseCompression(name string, level int) (archive.Compression, error) {
	c := archive.Compression(name)
	if name == "uncompressed" {
		c = archive.Uncompressed
	}
	return c, archive.CheckLevel(c, level)
}
