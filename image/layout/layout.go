package layout

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
)

// fromLayout returns the images that index.json names.
func (im *importer) fromLayout(ctx context.Context, opts ImportOptions) ([]Imported, error) {
	index, err := image.ParseIndex(im.index, ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var images []Imported
	for _, d := range index.Manifests {
		if !image.IsIndex(d.MediaType) && !image.IsManifest(d.MediaType) {
			continue // an artifact that is not an image
		}
		ok, err := image.Usable(ctx, im.content, d)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, invalidf("archive has not all blobs of the image %s", d.Digest)
		}
		says := statedName(d)
		img := Imported{Target: image.PlainTarget(d), Stated: says.name, Tag: says.tag}
		if opts.Name == "" && !opts.Whole {
			if img.Name, err = nameOf(d, opts.Repository); err != nil {
				return nil, err
			}
		}
		images = append(images, img)
	}
	return images, nil
}
