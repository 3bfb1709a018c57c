package api

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/snapshot"
)

// snapshotsService is containerd.services.snapshots.v1.
type snapshotsService struct {
	db        *metadata.DB
	snapshots *snapshots.Store
}

func (s snapshotsService) Prepare(ctx context.Context, req *api.PrepareSnapshotRequest) (*api.PrepareSnapshotResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := s.snapshots.PrepareLayer(ctx, ns, req.GetSnapshotter(), metadata.Snapshot{
		Key: req.GetKey(), Parent: req.GetParent(), Kind: snapshot.KindActive, Labels: req.GetLabels(),
	})
	return &api.PrepareSnapshotResponse{Mounts: wire.ToMounts(mounts)}, err
}

func (s snapshotsService) View(ctx context.Context, req *api.ViewSnapshotRequest) (*api.ViewSnapshotResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := s.snapshots.Prepare(ctx, ns, req.GetSnapshotter(), metadata.Snapshot{
		Key: req.GetKey(), Parent: req.GetParent(), Kind: snapshot.KindView, Labels: req.GetLabels(),
	})
	return &api.ViewSnapshotResponse{Mounts: wire.ToMounts(mounts)}, err
}

func (s snapshotsService) Mounts(ctx context.Context, req *api.MountsRequest) (*api.MountsResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := s.snapshots.Mounts(ctx, ns, req.GetSnapshotter(), req.GetKey())
	if err != nil {
		return nil, err
	}
	return &api.MountsResponse{Mounts: wire.ToMounts(mounts)}, nil
}

func (s snapshotsService) Commit(ctx context.Context, req *api.CommitSnapshotRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	if p := req.GetParent(); p != "" { // to rebase a snapshot, which the drivers do not say that they can
		var rec metadata.Snapshot
		err := s.db.View(ctx, func(tx *metadata.Tx) (err error) {
			rec, err = tx.Snapshots(ns, req.GetSnapshotter()).Stat(req.GetKey())
			return err
		})
		if err != nil {
			return nil, err
		}
		if rec.Parent != p {
			return nil, wire.Unsupported("commit snapshot "+req.GetKey(), "parent")
		}
	}
	return &emptypb.Empty{}, s.snapshots.Commit(ctx, ns, req.GetSnapshotter(), req.GetName(), req.GetKey(), req.GetLabels())
}

func (s snapshotsService) Remove(ctx context.Context, req *api.RemoveSnapshotRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.snapshots.Remove(ctx, ns, req.GetSnapshotter(), req.GetKey())
}

func (s snapshotsService) Stat(ctx context.Context, req *api.StatSnapshotRequest) (*api.StatSnapshotResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var rec metadata.Snapshot
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		rec, err = tx.Snapshots(ns, req.GetSnapshotter()).Stat(req.GetKey())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.StatSnapshotResponse{Info: toWireSnapshot(rec)}, nil
}

func (s snapshotsService) Update(ctx context.Context, req *api.UpdateSnapshotRequest) (*api.UpdateSnapshotResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	v := metadata.Snapshot{Key: req.GetInfo().GetName(), Labels: req.GetInfo().GetLabels()}
	rec, err := s.snapshots.Update(ctx, ns, req.GetSnapshotter(), v, req.GetUpdateMask().GetPaths())
	if err != nil {
		return nil, err
	}
	return &api.UpdateSnapshotResponse{Info: toWireSnapshot(rec)}, nil
}

func (s snapshotsService) list(ctx context.Context, req *api.ListSnapshotsRequest, send func(*api.ListSnapshotsResponse) error) error {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return rpc.ToWire(err)
	}
	if err := s.snapshots.Known(req.GetSnapshotter()); err != nil {
		return rpc.ToWire(err)
	}
	var list []metadata.Snapshot
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Snapshots(ns, req.GetSnapshotter()).List(req.GetFilters()...)
		return err
	})
	if err != nil {
		return rpc.ToWire(err)
	}
	for len(list) > 0 {
		n := min(wire.ListChunk, len(list))
		msg := &api.ListSnapshotsResponse{}
		for _, rec := range list[:n] {
			msg.Info = append(msg.Info, toWireSnapshot(rec))
		}
		if err := send(msg); err != nil {
			return fmt.Errorf("send list of snapshots: %w", err)
		}
		list = list[n:]
	}
	return nil
}

func (s snapshotsService) Usage(ctx context.Context, req *api.UsageRequest) (*api.UsageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	u, err := s.snapshots.Usage(ctx, ns, req.GetSnapshotter(), req.GetKey())
	if err != nil {
		return nil, err
	}
	return &api.UsageResponse{Size: u.Size, Inodes: u.Inodes}, nil
}

func (s snapshotsService) Cleanup(ctx context.Context, req *api.CleanupRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.snapshots.CleanDriver(ctx, req.GetSnapshotter())
}

type snapshotsGRPC struct {
	snapshotsService
	api.UnsafeSnapshotsServer
}

var _ api.SnapshotsServer = snapshotsGRPC{}

func (s snapshotsGRPC) List(req *api.ListSnapshotsRequest, stream api.Snapshots_ListServer) error {
	return s.list(stream.Context(), req, stream.Send)
}

type snapshotsTTRPC struct{ snapshotsService }

var _ api.TTRPCSnapshotsService = snapshotsTTRPC{}

func (s snapshotsTTRPC) List(ctx context.Context, req *api.ListSnapshotsRequest, stream api.TTRPCSnapshots_ListServer) error {
	return s.list(ctx, req, stream.Send)
}

func toWireSnapshot(v metadata.Snapshot) *api.Info {
	kind := api.Kind_UNKNOWN
	switch v.Kind {
	case snapshot.KindView:
		kind = api.Kind_VIEW
	case snapshot.KindActive:
		kind = api.Kind_ACTIVE
	case snapshot.KindCommitted:
		kind = api.Kind_COMMITTED
	case snapshot.KindUnknown:
	}
	return &api.Info{
		Name: v.Key, Parent: v.Parent, Kind: kind, Labels: v.Labels,
		CreatedAt: wire.Timestamp(v.CreatedAt), UpdatedAt: wire.Timestamp(v.UpdatedAt),
	}
}
