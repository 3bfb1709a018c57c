package api

import (
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/types"
)

// stamp returns a time on the wire; the zero time is absent.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// given returns a time that a request may have; the zero time if it has none.
func given(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func recordAny(a *anypb.Any) *metadata.Any {
	if a == nil {
		return nil
	}
	return &metadata.Any{TypeURL: a.GetTypeUrl(), Value: a.GetValue()}
}

func apiAny(a *metadata.Any) *anypb.Any {
	if a == nil {
		return nil
	}
	return &anypb.Any{TypeUrl: a.TypeURL, Value: a.Value}
}

func shimAny(a *anypb.Any) *types.Any {
	if a == nil {
		return nil
	}
	return &types.Any{TypeUrl: a.GetTypeUrl(), Value: a.GetValue()}
}

func apiFromShimAny(a *types.Any) *anypb.Any {
	if a == nil {
		return nil
	}
	return &anypb.Any{TypeUrl: a.TypeUrl, Value: a.Value}
}

func apiMounts(mounts []mount.Mount) []*apitypes.Mount {
	out := make([]*apitypes.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}

func recordMounts(mounts []*apitypes.Mount) []mount.Mount {
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = mount.Mount{Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions()}
	}
	return out
}

func apiDescriptor(d ocispec.Descriptor) *apitypes.Descriptor {
	return &apitypes.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations,
	}
}

func recordDescriptor(d *apitypes.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: d.GetMediaType(), Digest: digest.Digest(d.GetDigest()), Size: d.GetSize(), Annotations: d.GetAnnotations(),
	}
}
