package api

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/diff/v1"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/images"
)

// diffService is containerd.services.diff.v1.
type diffService struct {
	images *images.Store
	api.UnsafeDiffServer
}

var (
	_ api.DiffServer       = diffService{}
	_ api.TTRPCDiffService = diffService{}
)

// Apply applies a layer to mounts.
func (s diffService) Apply(ctx context.Context, req *api.ApplyRequest) (*api.ApplyResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	layer := wire.FromDescriptor(req.GetDiff())
	if _, err := wire.ParseDigest(req.GetDiff().GetDigest()); err != nil {
		return nil, err
	}
	payloads := make(map[string][]byte, len(req.GetPayloads()))
	for id, any := range req.GetPayloads() {
		if payloads[id], err = proto.Marshal(any); err != nil {
			return nil, fmt.Errorf("encode payload for %s: %w", id, err)
		}
	}
	plain, err := s.images.Apply(ctx, ns, layer, wire.FromMounts(req.GetMounts()), payloads, req.GetSyncFs())
	if err != nil {
		return nil, err
	}
	return &api.ApplyResponse{Applied: wire.ToDescriptor(plain)}, nil
}

// Diff writes the difference of two sets of mounts into the content store.
func (s diffService) Diff(ctx context.Context, req *api.DiffRequest) (*api.DiffResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	r := images.DiffRequest{
		Left: wire.FromMounts(req.GetLeft()), Right: wire.FromMounts(req.GetRight()),
		MediaType: req.GetMediaType(), Ref: req.GetRef(), Labels: req.GetLabels(),
	}
	if t := req.GetSourceDateEpoch(); t != nil {
		r.Latest = t.AsTime()
	}
	d, err := s.images.Diff(ctx, ns, r)
	if err != nil {
		return nil, err
	}
	return &api.DiffResponse{Diff: wire.ToDescriptor(d)}, nil
}
