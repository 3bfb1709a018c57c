package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Image is an image of the daemon.
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
// (empty: this host's). A missing one is errdefs.ErrNotFound.
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

// RemoveImage deletes the name, and its content unless it is used elsewhere. A missing one is
// errdefs.ErrNotFound.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	_, err := call[cleatapi.RemoveImageResponse](ctx, c, cleatapi.ImagesService, "Remove",
		&cleatapi.RemoveImageRequest{Name: name})
	return about("remove image", name, err)
}

// TagImage adds a name to an image, by name or digest. An existing name is moved.
func (c *Client) TagImage(ctx context.Context, source, target string) (Image, error) {
	t, err := c.transfer(ctx, transfer{
		source:      storeEnd(&cleatapi.ImageStore{Names: []string{source}}),
		destination: storeEnd(&cleatapi.ImageStore{Names: []string{target}, NoUnpack: true}),
	})
	if err != nil {
		return Image{}, about("tag image", source, err)
	}
	list, err := c.saved(ctx, t)
	if err != nil {
		return Image{}, about("tag image", source, err)
	}
	return list[0], nil
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
