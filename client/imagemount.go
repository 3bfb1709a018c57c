package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// MountStep is one mount: what mount(8) takes. Target is a path below the directory that is mounted on.
type MountStep struct {
	Type, Source, Target string
	Options              []string
}

// MountImageRequest of MountImage; Image and Target are required.
type MountImageRequest struct {
	// Image by name or digest.
	Image string
	// Target is the directory that the caller will mount on, an absolute path without links.
	Target string
	// Writable makes a snapshot that can be written to.
	Writable bool
	// Platform is os/arch[/variant]; empty: the daemon's.
	Platform    string
	Snapshotter string
	// MountNamespace is the caller's, as the link /proc/self/ns/mnt has it.
	MountNamespace string
}

// ImageMount is a snapshot of an image that was made to be mounted.
type ImageMount struct {
	Target, Image    string
	Snapshotter, Key string
	Writable         bool
	CreatedAt        time.Time
	MountNamespace   string
	// Steps mount it; none where the snapshotter does not say.
	Steps []MountStep
}

// MountImage makes a snapshot of an image and returns how to mount it, which is the caller's to do, and the
// snapshot's key. It stays until UnmountImage. A target that has one is errdefs.ErrAlreadyExists.
func (c *Client) MountImage(ctx context.Context, r MountImageRequest) (steps []MountStep, key string, err error) {
	resp, err := call[cleatapi.MountImageResponse](ctx, c, cleatapi.ImagesService, "Mount", &cleatapi.MountImageRequest{
		Image: r.Image, Target: r.Target, Writable: r.Writable, Platform: r.Platform, Snapshotter: r.Snapshotter, MountNamespace: r.MountNamespace,
	})
	if err != nil {
		return nil, "", about("mount image", r.Image, err)
	}
	return mountSteps(resp.Mounts), resp.Key, nil
}

// UnmountImage lets go of the snapshot that was made for a target, which the caller has unmounted. With remove it
// is gone with the answer, otherwise with the next collection. One that is not there is errdefs.ErrNotFound.
func (c *Client) UnmountImage(ctx context.Context, target, key string, remove bool) error {
	_, err := call[cleatapi.UnmountImageResponse](ctx, c, cleatapi.ImagesService, "Unmount",
		&cleatapi.UnmountImageRequest{Target: target, Key: key, Remove: remove})
	return about("unmount image", target, err)
}

// ImageMounts tells of the snapshots that MountImage made.
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
