package client

import (
	"context"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Space is bytes on disk: all, and those that no other image has. Several names of one digest are one image.
type Space struct{ Size, Unique, Shared int64 }

// ImageUsage is the disk usage of an image.
type ImageUsage struct {
	Name, Digest string
	// Compressed is the usage of the present blobs.
	Compressed Space
	// Unpacked is the usage of the layers' snapshots, by snapshotter.
	Unpacked map[string]Space
}

// ImageUsage returns the disk usage of images, by name or digest; of all if there are no names.
func (c *Client) ImageUsage(ctx context.Context, names ...string) ([]ImageUsage, error) {
	resp, err := query[cleatapi.ImageUsageResponse](ctx, c, cleatapi.ImagesService, "Usage", &cleatapi.ImageUsageRequest{Images: names})
	if err != nil {
		return nil, about("measure images", "", err)
	}
	out := make([]ImageUsage, len(resp.Images))
	for i, m := range resp.Images {
		out[i] = ImageUsage{
			Name: m.Name, Digest: m.Digest, Unpacked: make(map[string]Space),
			Compressed: Space{m.Compressed, m.CompressedUnique, m.CompressedShared},
		}
		for _, u := range m.Unpacked {
			out[i].Unpacked[u.Snapshotter] = Space{u.Size_, u.Unique, u.Shared}
		}
	}
	return out, nil
}

// LabelImage sets labels of an image's name, by name or digest, and returns the image. An empty value
// removes a label; without labels nothing changes.
func (c *Client) LabelImage(ctx context.Context, name string, labels map[string]string) (Image, error) {
	resp, err := call[cleatapi.LabelImageResponse](ctx, c, cleatapi.ImagesService, "Label", &cleatapi.LabelImageRequest{Name: name, Labels: labels})
	if err != nil {
		return Image{}, about("label image", name, err)
	}
	return image(resp.Image), nil
}

// Referrer is a document of a registry that refers to an image: a signature, a list of parts and so on.
type Referrer struct {
	Digest, MediaType, ArtifactType string
	Size                            int64
	Annotations                     map[string]string
}

// Referrers lists the documents in the registry of a reference that refer to that image, of one type or of all for "",
// and returns the digest of the reference.
func (c *Client) Referrers(ctx context.Context, reference, artifactType string, cred Credential) (digest string, list []Referrer, err error) {
	resp, err := query[cleatapi.ReferrersResponse](ctx, c, cleatapi.ImagesService, "Referrers", &cleatapi.ReferrersRequest{
		Reference: reference, ArtifactType: artifactType, Credential: cred.wire(),
	})
	if err != nil {
		return "", nil, about("list referrers", reference, err)
	}
	for _, m := range resp.Referrers {
		list = append(list, Referrer{Digest: m.Digest, MediaType: m.MediaType, ArtifactType: m.ArtifactType, Size: m.Size_, Annotations: m.Annotations})
	}
	return resp.Digest, list, nil
}
