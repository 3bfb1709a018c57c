package api

import (
	"context"
	"fmt"
	"maps"

	api "github.com/containerd/containerd/api/services/mounts/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/activations"
	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/proto/rpc"
)

// mountsService is containerd.services.mounts.v1, by mount/activation. Activate goes by daemon/service/activations/store.go.
type mountsService struct {
	activations *activations.Store
}

func (s mountsService) Activate(ctx context.Context, req *api.ActivateRequest) (*api.ActivateResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.activations.Activate(ctx, ns, req.GetName(), wire.FromMounts(req.GetMounts()), activation.Options{
		Labels: req.GetLabels(), Temporary: req.GetTemporary(),
	})
	if err != nil {
		return nil, err
	}
	return &api.ActivateResponse{Info: toWireActivation(a)}, nil
}

func (s mountsService) Deactivate(ctx context.Context, req *api.DeactivateRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.activations.Deactivate(ctx, ns, req.GetName())
}

func (s mountsService) Info(ctx context.Context, req *api.InfoRequest) (*api.InfoResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.activations.Info(ns, req.GetName())
	if err != nil {
		return nil, err
	}
	return &api.InfoResponse{Info: toWireActivation(a)}, nil
}

// Update changes labels; nothing else of an activation can be changed.
func (s mountsService) Update(ctx context.Context, req *api.UpdateRequest) (*api.UpdateResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	name, wanted := req.GetInfo().GetName(), req.GetInfo().GetLabels()
	if err := metadata.ValidateLabels(wanted); err != nil {
		return nil, fmt.Errorf("update activation %s: %w", name, err)
	}
	var bad error
	a, err := s.activations.SetLabels(ctx, ns, name, func(labels map[string]string) map[string]string {
		if labels == nil {
			labels = make(map[string]string)
		}
		before := maps.Clone(labels)
		if bad = metadata.UpdateLabels(&labels, wanted, req.GetUpdateMask().GetPaths()); bad != nil {
			return before
		}
		return labels
	})
	if bad != nil {
		return nil, fmt.Errorf("update activation %s: %w", name, bad)
	}
	if err != nil {
		return nil, err
	}
	return &api.UpdateResponse{Info: toWireActivation(a)}, nil
}

func (s mountsService) list(ctx context.Context, req *api.ListRequest, send func(*api.ListMessage) error) error {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return rpc.ToWire(err)
	}
	filter, err := filters.ParseAll(req.GetFilters()...)
	if err != nil {
		return rpc.ToWire(err)
	}
	for _, a := range s.activations.List(ns) {
		if !filter.Match(activationFields(a)) {
			continue
		}
		if err := send(&api.ListMessage{Info: toWireActivation(a)}); err != nil {
			return fmt.Errorf("send list of activations: %w", err)
		}
	}
	return nil
}

// activationFields are what filters see of an activation.
func activationFields(a activation.Activation) filters.Adaptor {
	return filters.AdaptorFunc(func(path []string) (string, bool) {
		switch {
		case len(path) == 1 && path[0] == "name":
			return a.Name, true
		case len(path) == 2 && path[0] == "labels":
			v, ok := a.Labels[path[1]]
			return v, ok
		}
		return "", false
	})
}

func toWireActivation(a activation.Activation) *apitypes.ActivationInfo {
	info := &apitypes.ActivationInfo{Name: a.Name, System: wire.ToMounts(a.System), Labels: a.Labels}
	for _, m := range a.Active {
		info.Active = append(info.Active, &apitypes.ActiveMount{
			Mount: wire.ToMounts([]mount.Mount{m.Mount})[0], MountedAt: wire.Timestamp(m.At), MountPoint: m.Point,
		})
	}
	return info
}

// mountsGRPC and mountsTTRPC are mounts on the two transports, which differ in how a list is sent.
type mountsGRPC struct {
	mountsService
	api.UnsafeMountsServer
}

type mountsTTRPC struct{ mountsService }

var (
	_ api.MountsServer       = mountsGRPC{}
	_ api.TTRPCMountsService = mountsTTRPC{}
)

// List sends every activation that a filter lets through.
func (s mountsGRPC) List(req *api.ListRequest, stream api.Mounts_ListServer) error {
	return s.list(stream.Context(), req, stream.Send)
}

// List sends every activation that a filter lets through.
func (s mountsTTRPC) List(ctx context.Context, req *api.ListRequest, stream api.TTRPCMounts_ListServer) error {
	return s.list(ctx, req, stream.Send)
}
