package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/containerd/errdefs"
)

// Credential is what a user shows to a registry; the zero value is nobody. The daemon uses it for one
// call, does not keep it, and shows it to the registry of the call's reference alone.
type Credential struct {
	Username, Password string
	// IdentityToken is shown to get tokens, RegistryToken is one.
	IdentityToken, RegistryToken string
}

// String hides what it is.
func (Credential) String() string { return "(hidden)" }

// GoString hides what it is.
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
	// NoUnpack only stores.
	NoUnpack bool
	// MaxConcurrentDownloads is how many layers are fetched at the same time; 0: 3.
	MaxConcurrentDownloads int
	Credential             Credential
}

// Part is how far a part of an image has come.
type Part struct {
	Digest, MediaType string
	// State is waiting, downloading, exists, downloaded, unpacking or unpacked, and of a push
	// waiting, uploading, exists, mounted or uploaded.
	State       string
	Done, Total int64 // bytes
}

// Pull fetches an image from a registry and unpacks it. progress, where it is not nil, is called with
// what changed, five times a second at most. A pull that was ended by ctx or broke off goes on where it
// was with the next one.
func (c *Client) Pull(ctx context.Context, r PullRequest, progress func([]Part)) (Image, error) {
	img, err := c.transfer(ctx, "Pull", &cleatapi.PullRequest{
		Reference: r.Reference, Platform: r.Platform, AllPlatforms: r.AllPlatforms, Snapshotter: r.Snapshotter,
		NoUnpack: r.NoUnpack, MaxConcurrentDownloads: uint32(max(r.MaxConcurrentDownloads, 0)),
		Credential: r.Credential.wire(), Namespace: c.namespace,
	}, progress)
	return img, transferError("pull", r.Reference, err)
}

// PushRequest of Push; only Reference is required.
type PushRequest struct {
	// Reference to push to, as Docker's users write it.
	Reference string
	// Image here, by name or digest; empty: the reference.
	Image string
	// Platform pushes only the manifest for os/arch[/variant]; empty: all that the image has.
	Platform string
	// MaxConcurrentUploads is how many blobs are sent at the same time; 0: 3.
	MaxConcurrentUploads int
	Credential           Credential
	// Referrers pushes what is here under a name and refers to the image, or to a part of it, as well:
	// signatures, attestations and the like.
	Referrers bool
}

// Push brings an image to a registry, what that lacks of it, and returns what that has then. progress,
// where it is not nil, is called with what changed, five times a second at most.
func (c *Client) Push(ctx context.Context, r PushRequest, progress func([]Part)) (Image, error) {
	img, err := c.transfer(ctx, "Push", &cleatapi.PushRequest{
		Reference: r.Reference, Image: r.Image, Platform: r.Platform, Referrers: r.Referrers,
		MaxConcurrentUploads: uint32(max(r.MaxConcurrentUploads, 0)),
		Credential:           r.Credential.wire(), Namespace: c.namespace,
	}, progress)
	return img, transferError("push", r.Reference, err)
}

// transferError names the call, unless the daemon has.
func transferError(verb, reference string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), verb+" ") {
		return err
	}
	return about(verb, reference, err)
}

// transfer follows a call that tells of its progress to its end.
func (c *Client) transfer(ctx context.Context, method string, req rpc.Message, progress func([]Part)) (out Image, err error) {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return out, err
	}
	ended := false
	// A stream that was left before its end is ended by closing the connection.
	defer func() { c.conns.put(conn, ended) }()
	s, err := rpc.OpenServerStream[cleatapi.TransferProgress](ctx, conn.ttrpc, cleatapi.ImagesService, method, req)
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
			return out, fmt.Errorf("the daemon ended the call without an answer: %w", errdefs.ErrUnavailable)
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
