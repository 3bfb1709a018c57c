package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"strings"

	api "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/metadata"
)

// leasesService is containerd.services.leases.v1.
type leasesService struct {
	db *metadata.DB
	gc *gc.Collector
	api.UnsafeLeasesServer
}

var (
	_ api.LeasesServer       = leasesService{}
	_ api.TTRPCLeasesService = leasesService{}
)

// update runs one change of a namespace's leases.
func (s leasesService) update(ctx context.Context, f func(metadata.Leases) error) error {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error { return f(tx.Leases(ns)) })
}

// view reads a namespace's leases.
func (s leasesService) view(ctx context.Context, f func(metadata.Leases) error) error {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return err
	}
	return s.db.View(ctx, func(tx *metadata.Tx) error { return f(tx.Leases(ns)) })
}

func (s leasesService) Create(ctx context.Context, req *api.CreateRequest) (*api.CreateResponse, error) {
	v := metadata.Lease{ID: cmp.Or(req.GetID(), strings.ToLower(rand.Text())), Labels: req.GetLabels()}
	err := s.update(ctx, func(l metadata.Leases) error {
		created, err := l.Create(v)
		if err == nil {
			v = created
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateResponse{Lease: toWireLease(v)}, nil
}

func (s leasesService) Delete(ctx context.Context, req *api.DeleteRequest) (*emptypb.Empty, error) {
	err := s.update(ctx, func(l metadata.Leases) error { return l.Delete(req.GetID()) })
	if err != nil || !req.GetSync() {
		return &emptypb.Empty{}, err
	}
	_, err = s.gc.Collect(ctx)
	return &emptypb.Empty{}, err
}

func (s leasesService) List(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error) {
	resp := &api.ListResponse{}
	err := s.view(ctx, func(l metadata.Leases) error {
		list, err := l.List(req.GetFilters()...)
		for _, v := range list {
			resp.Leases = append(resp.Leases, toWireLease(v))
		}
		return err
	})
	return resp, err
}

func (s leasesService) AddResource(ctx context.Context, req *api.AddResourceRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.update(ctx, func(l metadata.Leases) error {
		return l.AddResource(req.GetID(), fromWireResource(req.GetResource()))
	})
}

func (s leasesService) DeleteResource(ctx context.Context, req *api.DeleteResourceRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.update(ctx, func(l metadata.Leases) error {
		return l.DeleteResource(req.GetID(), fromWireResource(req.GetResource()))
	})
}

func (s leasesService) ListResources(ctx context.Context, req *api.ListResourcesRequest) (*api.ListResourcesResponse, error) {
	resp := &api.ListResourcesResponse{}
	err := s.view(ctx, func(l metadata.Leases) error {
		list, err := l.Resources(req.GetID())
		for _, r := range list {
			resp.Resources = append(resp.Resources, &api.Resource{ID: r.ID, Type: r.Type})
		}
		return err
	})
	return resp, err
}

func toWireLease(v metadata.Lease) *api.Lease {
	return &api.Lease{ID: v.ID, Labels: v.Labels, CreatedAt: wire.Timestamp(v.CreatedAt)}
}

func fromWireResource(r *api.Resource) metadata.Resource {
	return metadata.Resource{ID: r.GetID(), Type: r.GetType()}
}
