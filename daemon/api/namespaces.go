package api

import (
	"context"
	"errors"

	api "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/metadata"
)

// namespacesService is containerd.services.namespaces.v1.
type namespacesService struct {
	db         *metadata.DB
	namespaces *namespaces.Store
	api.UnsafeNamespacesServer
}

var (
	_ api.NamespacesServer       = namespacesService{}
	_ api.TTRPCNamespacesService = namespacesService{}
)

// Get answers for a namespace that is not there as for one without labels: clients ask for its
// defaults before they first use it.
func (s namespacesService) Get(ctx context.Context, req *api.GetNamespaceRequest) (*api.GetNamespaceResponse, error) {
	var ns metadata.Namespace
	if err := access.Allow(ctx, req.GetName()); err != nil {
		return nil, err
	}
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		ns, err = tx.Namespaces().Get(req.GetName())
		if errors.Is(err, errdefs.ErrNotFound) {
			ns.Name, err = req.GetName(), identifier.Check(req.GetName())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.GetNamespaceResponse{Namespace: toWireNamespace(ns)}, nil
}

func (s namespacesService) List(ctx context.Context, req *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	var filters []string
	if f := req.GetFilter(); f != "" {
		filters = append(filters, f)
	}
	var list []metadata.Namespace
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Namespaces().List(filters...)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &api.ListNamespacesResponse{}
	for _, ns := range list {
		if access.Allowed(ctx, ns.Name) {
			resp.Namespaces = append(resp.Namespaces, toWireNamespace(ns))
		}
	}
	return resp, nil
}

func (s namespacesService) Create(ctx context.Context, req *api.CreateNamespaceRequest) (*api.CreateNamespaceResponse, error) {
	ns := req.GetNamespace()
	if err := access.Allow(ctx, ns.GetName()); err != nil {
		return nil, err
	}
	if err := s.namespaces.Create(ctx, ns.GetName(), ns.GetLabels()); err != nil {
		return nil, err
	}
	return &api.CreateNamespaceResponse{Namespace: ns}, nil
}

func (s namespacesService) Update(ctx context.Context, req *api.UpdateNamespaceRequest) (*api.UpdateNamespaceResponse, error) {
	v := metadata.Namespace{Name: req.GetNamespace().GetName(), Labels: req.GetNamespace().GetLabels()}
	if err := access.Allow(ctx, v.Name); err != nil {
		return nil, err
	}
	ns, err := s.namespaces.Update(ctx, v, req.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	return &api.UpdateNamespaceResponse{Namespace: toWireNamespace(ns)}, nil
}

func (s namespacesService) Delete(ctx context.Context, req *api.DeleteNamespaceRequest) (*emptypb.Empty, error) {
	if err := access.Allow(ctx, req.GetName()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.namespaces.Delete(ctx, req.GetName())
}

func toWireNamespace(ns metadata.Namespace) *api.Namespace {
	return &api.Namespace{Name: ns.Name, Labels: ns.Labels}
}
