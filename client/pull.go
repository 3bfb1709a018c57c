package client

import (
	"context"
	"strings"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Credential is a user's credential for a registry; the zero value is anonymous. The daemon uses it for one
// call, does not keep it, and sends it to the registry of the call's reference alone.
type Credential struct {
	Username, Password string
	// IdentityToken is used to get tokens, RegistryToken is one.
	IdentityToken, RegistryToken string
}

// String hides the credential.
func (Credential) String() string { return "(hidden)" }

// GoString hides the credential.
func (Credential) GoString() string { return "(hidden)" }

func (c Credential) wire() *cleatapi.Credential {
	if c == (Credential{}) {
		return nil
	}
	return &cleatapi.Credential{
		Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}

// PullRequest of Pull; only Reference is required.
type PullRequest struct {
	// Reference as Docker's users write it.
	Reference string
	// Platform is os/arch[/variant]; empty: the daemon's.
	Platform     string
	AllPlatforms bool
	// Snapshotter to unpack to; empty: the daemon's default.
	Snapshotter string
	// NoUnpack stores the image without unpacking it.
	NoUnpack bool
	// MaxConcurrentDownloads is the number of layers fetched in parallel; 0: 3.
	MaxConcurrentDownloads int
	Credential             Credential
}

// Part is the progress of a part of an image.
type Part struct {
	Digest, MediaType string
	// State is waiting, downloading, exists, downloaded, unpacking or unpacked, and of a push
	// waiting, uploading, exists, mounted or uploaded.
	State       string
	Done, Total int64 // bytes
}

// Pull fetches an image from a registry and unpacks it. progress, if not nil, is called with
// changed parts, at most five times a second. An interrupted pull is resumed by
// the next one.
func (c *Client) Pull(ctx context.Context, r PullRequest, progress func([]Part)) (Image, error) {
	from := &cleatapi.Registry{Reference: r.Reference, MaxConcurrent: uint32(max(r.MaxConcurrentDownloads, 0))}
	to := &cleatapi.ImageStore{Platform: r.Platform, AllPlatforms: r.AllPlatforms, Snapshotter: r.Snapshotter, NoUnpack: r.NoUnpack}
	t, err := c.transfer(ctx, transfer{
		source: registryEnd(from), destination: storeEnd(to), registry: from, credential: r.Credential, progress: progress,
	})
	if err != nil {
		return Image{}, transferError("pull", r.Reference, err)
	}
	list, err := c.saved(ctx, t)
	if err != nil {
		return Image{}, transferError("pull", r.Reference, err)
	}
	return list[0], nil
}

// PushRequest of Push; only Reference is required.
type PushRequest struct {
	// Reference to push to, as Docker's users write it.
	Reference string
	// Image is the local image, by name or digest; empty: the reference.
	Image string
	// Platform pushes only the manifest for os/arch[/variant]; empty: all manifests of the image.
	Platform string
	// MaxConcurrentUploads is the number of blobs sent in parallel; 0: 3.
	MaxConcurrentUploads int
	Credential           Credential
	// Referrers also pushes local named documents that refer to the image, or to a part of it:
	// signatures, attestations and the like.
	Referrers bool
}

// Push pushes an image to a registry, without the parts that it already has, and returns its name,
// digest and media type there. progress, if not nil, is called with changed parts, at most five times a
// second.
func (c *Client) Push(ctx context.Context, r PushRequest, progress func([]Part)) (Image, error) {
	from := &cleatapi.ImageStore{Platform: r.Platform, Referrers: r.Referrers}
	if r.Image != "" {
		from.Names = []string{r.Image}
	}
	to := &cleatapi.Registry{Reference: r.Reference, MaxConcurrent: uint32(max(r.MaxConcurrentUploads, 0))}
	t, err := c.transfer(ctx, transfer{
		source: storeEnd(from), destination: registryEnd(to), registry: to, credential: r.Credential, progress: progress,
	})
	if err == nil && t.pushed == nil {
		err = errNoAnswer()
	}
	if err != nil {
		return Image{}, transferError("push", r.Reference, err)
	}
	d := t.pushed
	return Image{Name: d.Annotations[cleatapi.NameAnnotation], Digest: d.Digest, MediaType: d.MediaType}, nil
}

// transferError adds the call to an error, unless the daemon has.
func transferError(verb, reference string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), verb+" ") {
		return err
	}
	return about(verb, reference, err)
}
