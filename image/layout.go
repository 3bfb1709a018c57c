package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fromLayout returns the images that index.json names.
func (im *importer) fromLayout(ctx context.Context, opts ImportOptions) ([]Imported, error) {
	index, err := parseIndex(im.index, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var images []Imported
	for _, d := range index.Manifests {
		if !IsIndex(d.MediaType) && !IsManifest(d.MediaType) {
			continue // an artifact that is not an image
		}
		ok, err := complete(ctx, im.content, d, 0)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, invalidf("archive has not all blobs of the image %s", d.Digest)
		}
		says := statedName(d)
		img := Imported{Target: plainTarget(d), Stated: says.name, Tag: says.tag}
		if opts.Name == "" && !opts.Whole {
			if img.Name, err = nameOf(d, opts.Repository); err != nil {
				return nil, err
			}
		}
		images = append(images, img)
	}
	return images, nil
}

// plainTarget returns a descriptor without the members that the archive's index adds to it.
func plainTarget(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// complete reports whether the image at desc can be used: a manifest whose content is all
// present, or an index with at least one such (archives often hold one platform of many). A
// document that cannot be trusted is an error.
func complete(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int) (bool, error) {
	if depth > maxNesting {
		return false, invalidf("indexes are nested more than %d deep", maxNesting)
	}
	children, err := Children(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if IsIndex(desc.MediaType) {
		found := false
		for _, c := range children {
			if !IsIndex(c.MediaType) && !IsManifest(c.MediaType) {
				continue
			}
			ok, err := complete(ctx, p, c, depth+1)
			if err != nil {
				return false, err
			}
			found = found || ok
		}
		return found, nil
	}
	for _, c := range children {
		b, err := p.ReaderAt(ctx, c.Digest)
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		size := b.Size()
		_ = b.Close()
		if size != c.Size {
			return false, invalidf("blob %s: %d bytes, in the manifest %s %d", c.Digest, size, desc.Digest, c.Size)
		}
	}
	return true, nil
}
