package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// MountStep is one mount, as an argument of mount(8). Target is a path below the mount point.
type MountStep struct {
	Type, Source, Target string
	Options              []string
}

// MountImageRequest of MountImage; Image and Target are required.
type MountImageRequest struct {
	// Image by name or digest.
	Image string
	// Target is the future mount point, an absolute path without links.
	Target string
	// Writable creates a writable snapshot.
	Writable bool
	// Platform is os/arch[/variant]; empty: the daemon's.
	Platform    string
	Snapshotter string
	// MountNamespace is the caller's, as shown by the link /proc/self/ns/mnt.
	MountNamespace string
}

// ImageMount is a snapshot of an image that was created to be mounted.
type ImageMount struct {
	Target, Image    string
	Snapshotter, Key string
	Writable         bool
	CreatedAt        time.Time
	MountNamespace   string
	// Steps mount it; none if the snapshotter does not return them.
	Steps []MountStep
}

// MountImage creates a snapshot of an image and returns its mounts, which the caller performs, and the
// snapshot's key. It is kept until UnmountImage. A target that has one is errdefs.ErrAlreadyExists.
func (c *Client) MountImage(ctx context.Context, r MountImageRequest) (steps []MountStep, key string, err error) {
	resp, err := call[cleatapi.MountImageResponse](ctx, c, cleatapi.ImagesService, "Mount", &cleatapi.MountImageRequest{
		Image: r.Image, Target: r.Target, Writable: r.Writable, Platform: r.Platform, Snapshotter: r.Snapshotter, MountNamespace: r.MountNamespace,
	})
	if err != nil {
		return nil, "", about("mount image", r.Image, err)
	}
	return mountSteps(resp.Mounts), resp.Key, nil
}

// UnmountImage releases the snapshot that was created for a target, which the caller has unmounted. With remove it
// is removed before the call returns, otherwise by the next collection. A missing one is errdefs.ErrNotFound.
func (c *Client) UnmountImage(ctx context.Context, target, key string, remove bool) error {
	_, err := call[cleatapi.UnmountImageResponse](ctx, c, cleatapi.ImagesService, "Unmount",
		&cleatapi.UnmountImageRequest{Target: target, Key: key, Remove: remove})
	return about("unmount image", target, err)
}

// ImageMounts returns the snapshots that MountImage created.
func (c *Client) ImageMounts(ctx context.Context) ([]ImageMount, error) {
	resp, err := query[cleatapi.ListImageMountsResponse](ctx, c, cleatapi.ImagesService, "ListMounts", &cleatapi.ListImageMountsRequest{})
	if err != nil {
		return nil, about("list mounted images", "", err)
	}
	out := make([]ImageMount, len(resp.Mounts))
	for i, m := range resp.Mounts {
		out[i] = ImageMount{
			Target: m.Target, Image: m.Image, Snapshotter: m.Snapshotter, Key: m.Key, Writable: m.Writable,
			CreatedAt: m.CreatedAt.Time(), MountNamespace: m.MountNamespace, Steps: mountSteps(m.Mounts),
		}
	}
	return out, nil
}

func mountSteps(ms []*cleatapi.ImageMountStep) []MountStep {
	out := make([]MountStep, len(ms))
	for i, m := range ms {
		out[i] = MountStep{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}
