// Package wire converts between the messages of containerd's API and the types of the daemon.
package wire

import (
	"fmt"
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/types"
)

// Timestamp returns a time on the wire; the zero time is absent.
func Timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Time returns a time that a request may have; the zero time if it has none.
func Time(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// FromAny returns a published Any as records hold it; nil for nil.
func FromAny(a *anypb.Any) *metadata.Any {
	if a == nil {
		return nil
	}
	return &metadata.Any{TypeURL: a.GetTypeUrl(), Value: a.GetValue()}
}

// ToAny is the reverse of FromAny.
func ToAny(a *metadata.Any) *anypb.Any {
	if a == nil {
		return nil
	}
	return &anypb.Any{TypeUrl: a.TypeURL, Value: a.Value}
}

// ShimAny returns a published Any as shims take it; nil for nil.
func ShimAny(a *anypb.Any) *types.Any {
	if a == nil {
		return nil
	}
	return &types.Any{TypeUrl: a.GetTypeUrl(), Value: a.GetValue()}
}

// FromShimAny is the reverse of ShimAny.
func FromShimAny(a *types.Any) *anypb.Any {
	if a == nil {
		return nil
	}
	return &anypb.Any{TypeUrl: a.TypeUrl, Value: a.Value}
}

// ToMounts returns mounts on the wire.
func ToMounts(mounts []mount.Mount) []*apitypes.Mount {
	out := make([]*apitypes.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}

// FromMounts returns the mounts of a request.
func FromMounts(mounts []*apitypes.Mount) []mount.Mount {
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = mount.Mount{Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions()}
	}
	return out
}

// ToDescriptor returns a descriptor on the wire.
func ToDescriptor(d ocispec.Descriptor) *apitypes.Descriptor {
	return &apitypes.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations,
	}
}

// FromDescriptor returns the descriptor of a request, whose digest is not checked.
func FromDescriptor(d *apitypes.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: d.GetMediaType(), Digest: digest.Digest(d.GetDigest()), Size: d.GetSize(), Annotations: d.GetAnnotations(),
	}
}

// FromPlatforms returns the platforms of a request, normalised.
func FromPlatforms(list []*apitypes.Platform) []ocispec.Platform {
	var out []ocispec.Platform
	for _, p := range list {
		out = append(out, FromPlatform(p))
	}
	return out
}

// FromPlatform returns a platform of a request, normalised.
func FromPlatform(p *apitypes.Platform) ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{
		OS: p.GetOS(), Architecture: p.GetArchitecture(), Variant: p.GetVariant(), OSVersion: p.GetOsVersion(), OSFeatures: p.GetOsFeatures(),
	})
}

// ParseDigest parses a digest of a request. It is errdefs.ErrInvalidArgument if it is not a digest.
func ParseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return d, nil
}

// ListChunk is the number of objects in one message of a list.
const ListChunk = 100

// MaxMessage is the size in bytes up to which gRPC receives and sends messages, the same as the peer's.
const MaxMessage = 16 << 20

// Unsupported returns the error for a field of a request that is set and has no meaning in cleat.
func Unsupported(what, field string) error {
	return fmt.Errorf("%s: field %s is not supported: %w", what, field, errdefs.ErrNotImplemented)
}
