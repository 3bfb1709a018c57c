package api

import (
	"context"

	api "github.com/containerd/containerd/api/services/sandbox/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/metadata"
)

// sandboxesService is the Store of containerd.services.sandbox.v1: records of sandboxes. Running them is
// the Controller's, see sandbox_controller.go.
type sandboxesService struct {
	db        *metadata.DB
	sandboxes *containers.Sandboxes
	api.UnsafeStoreServer
}

var (
	_ api.StoreServer       = sandboxesService{}
	_ api.TTRPCStoreService = sandboxesService{}
)

func (s sandboxesService) Create(ctx context.Context, req *api.StoreCreateRequest) (*api.StoreCreateResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	v, err := s.sandboxes.Create(ctx, ns, fromWireSandbox(req.GetSandbox()))
	if err != nil {
		return nil, err
	}
	return &api.StoreCreateResponse{Sandbox: toWireSandbox(v)}, nil
}

func (s sandboxesService) Update(ctx context.Context, req *api.StoreUpdateRequest) (*api.StoreUpdateResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var v metadata.Sandbox
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		v, err = tx.Sandboxes(ns).Update(fromWireSandbox(req.GetSandbox()), req.GetFields()...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.StoreUpdateResponse{Sandbox: toWireSandbox(v)}, nil
}

func (s sandboxesService) Delete(ctx context.Context, req *api.StoreDeleteRequest) (*api.StoreDeleteResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &api.StoreDeleteResponse{}, s.db.Update(ctx, func(tx *metadata.Tx) error {
		return tx.Sandboxes(ns).Delete(req.GetSandboxID())
	})
}

func (s sandboxesService) List(ctx context.Context, req *api.StoreListRequest) (*api.StoreListResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var list []metadata.Sandbox
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Sandboxes(ns).List(req.GetFilters()...)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &api.StoreListResponse{}
	for _, v := range list {
		resp.List = append(resp.List, toWireSandbox(v))
	}
	return resp, nil
}

func (s sandboxesService) Get(ctx context.Context, req *api.StoreGetRequest) (*api.StoreGetResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var v metadata.Sandbox
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		v, err = tx.Sandboxes(ns).Get(req.GetSandboxID())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.StoreGetResponse{Sandbox: toWireSandbox(v)}, nil
}

func toWireSandbox(v metadata.Sandbox) *apitypes.Sandbox {
	return &apitypes.Sandbox{
		SandboxID: v.ID, Runtime: &apitypes.Sandbox_Runtime{Name: v.Runtime.Name, Options: wire.ToAny(v.Runtime.Options)},
		Spec: wire.ToAny(v.Spec), Labels: v.Labels, CreatedAt: wire.Timestamp(v.CreatedAt), UpdatedAt: wire.Timestamp(v.UpdatedAt),
		Extensions: toWireAnys(v.Extensions), Sandboxer: v.Sandboxer,
	}
}

func fromWireSandbox(v *apitypes.Sandbox) metadata.Sandbox {
	return metadata.Sandbox{
		ID: v.GetSandboxID(), Runtime: metadata.Runtime{Name: v.GetRuntime().GetName(), Options: wire.FromAny(v.GetRuntime().GetOptions())},
		Spec: wire.FromAny(v.GetSpec()), Labels: v.GetLabels(), Extensions: fromWireAnys(v.GetExtensions()), Sandboxer: v.GetSandboxer(),
	}
}

func toWireAnys(m map[string]metadata.Any) map[string]*anypb.Any {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]*anypb.Any, len(m))
	for k, v := range m {
		out[k] = wire.ToAny(&v)
	}
	return out
}

func fromWireAnys(m map[string]*anypb.Any) map[string]metadata.Any {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]metadata.Any, len(m))
	for k, v := range m {
		if a := wire.FromAny(v); a != nil {
			out[k] = *a
		}
	}
	return out
}
