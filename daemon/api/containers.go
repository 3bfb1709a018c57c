package api

import (
	"context"

	api "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
)

// containersService is containerd.services.containers.v1.
type containersService struct {
	db         *metadata.DB
	containers *containers.Service
}

func (s containersService) Get(ctx context.Context, req *api.GetContainerRequest) (*api.GetContainerResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var c metadata.Container
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		c, err = tx.Containers(ns).Get(req.GetID())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.GetContainerResponse{Container: toWireContainer(c)}, nil
}

func (s containersService) list(ctx context.Context, filters []string) ([]*api.Container, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var list []metadata.Container
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Containers(ns).List(filters...)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]*api.Container, len(list))
	for i, c := range list {
		out[i] = toWireContainer(c)
	}
	return out, nil
}

func (s containersService) List(ctx context.Context, req *api.ListContainersRequest) (*api.ListContainersResponse, error) {
	list, err := s.list(ctx, req.GetFilters())
	if err != nil {
		return nil, err
	}
	return &api.ListContainersResponse{Containers: list}, nil
}

func (s containersService) listStream(ctx context.Context, req *api.ListContainersRequest, send func(*api.ListContainerMessage) error) error {
	list, err := s.list(ctx, req.GetFilters())
	if err != nil {
		return rpc.ToWire(err)
	}
	for _, c := range list {
		if err := send(&api.ListContainerMessage{Container: c}); err != nil {
			return err
		}
	}
	return nil
}

func (s containersService) Create(ctx context.Context, req *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.containers.Create(ctx, ns, fromWireContainer(req.GetContainer()))
	if err != nil {
		return nil, err
	}
	return &api.CreateContainerResponse{Container: toWireContainer(c)}, nil
}

func (s containersService) Update(ctx context.Context, req *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.containers.Update(ctx, ns, fromWireContainer(req.GetContainer()), req.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	return &api.UpdateContainerResponse{Container: toWireContainer(c)}, nil
}

func (s containersService) Delete(ctx context.Context, req *api.DeleteContainerRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.containers.Delete(ctx, ns, req.GetID())
}

// containersGRPC and containersTTRPC add what differs between the transports: streams.
type containersGRPC struct {
	containersService
	api.UnsafeContainersServer
}

var _ api.ContainersServer = containersGRPC{}

func (s containersGRPC) ListStream(req *api.ListContainersRequest, stream api.Containers_ListStreamServer) error {
	return s.listStream(stream.Context(), req, stream.Send)
}

type containersTTRPC struct{ containersService }

var _ api.TTRPCContainersService = containersTTRPC{}

func (s containersTTRPC) ListStream(ctx context.Context, req *api.ListContainersRequest, stream api.TTRPCContainers_ListStreamServer) error {
	return s.listStream(ctx, req, stream.Send)
}

func toWireContainer(c metadata.Container) *api.Container {
	out := &api.Container{
		ID: c.ID, Labels: c.Labels, Image: c.Image, Spec: wire.ToAny(c.Spec),
		Runtime:     &api.Container_Runtime{Name: c.Runtime.Name, Options: wire.ToAny(c.Runtime.Options)},
		Snapshotter: c.Snapshotter, SnapshotKey: c.SnapshotKey,
		CreatedAt: wire.Timestamp(c.CreatedAt), UpdatedAt: wire.Timestamp(c.UpdatedAt), Sandbox: c.SandboxID,
	}
	out.Extensions = toWireAnys(c.Extensions)
	return out
}

func fromWireContainer(c *api.Container) metadata.Container {
	out := metadata.Container{
		ID: c.GetID(), Labels: c.GetLabels(), Image: c.GetImage(), Spec: wire.FromAny(c.GetSpec()),
		Runtime:     metadata.Runtime{Name: c.GetRuntime().GetName(), Options: wire.FromAny(c.GetRuntime().GetOptions())},
		Snapshotter: c.GetSnapshotter(), SnapshotKey: c.GetSnapshotKey(), SandboxID: c.GetSandbox(),
	}
	out.Extensions = fromWireAnys(c.GetExtensions())
	return out
}
