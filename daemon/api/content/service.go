// Package content serves the content service.
package content

import (
	"context"

	api "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
)

// contentService is containerd.services.content.v1.
type contentService struct {
	db    *metadata.DB
	store *blobs.Store
}

func (s contentService) blobs(ctx context.Context) (*blobs.View, string, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.store.In(ns), ns, nil
}

func (s contentService) Info(ctx context.Context, req *api.InfoRequest) (*api.InfoResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := wire.ParseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	blob, err := blobs.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return &api.InfoResponse{Info: toWireBlob(blob)}, nil
}

func (s contentService) Update(ctx context.Context, req *api.UpdateRequest) (*api.UpdateResponse, error) {
	_, ns, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := wire.ParseDigest(req.GetInfo().GetDigest())
	if err != nil {
		return nil, err
	}
	v := metadata.Blob{Digest: d, Labels: req.GetInfo().GetLabels()}
	var blob metadata.Blob
	err = s.db.Update(ctx, func(tx *metadata.Tx) (err error) {
		blob, err = tx.Content(ns).Update(v, req.GetUpdateMask().GetPaths()...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateResponse{Info: toWireBlob(blob)}, nil
}

func (s contentService) list(ctx context.Context, req *api.ListContentRequest, send func(*api.ListContentResponse) error) error {
	_, ns, err := s.blobs(ctx)
	if err != nil {
		return rpc.ToWire(err)
	}
	var list []metadata.Blob
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Content(ns).List(req.GetFilters()...)
		return err
	})
	if err != nil {
		return rpc.ToWire(err)
	}
	for len(list) > 0 {
		n := min(wire.ListChunk, len(list))
		msg := &api.ListContentResponse{}
		for _, b := range list[:n] {
			msg.Info = append(msg.Info, toWireBlob(b))
		}
		if err := send(msg); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (s contentService) Delete(ctx context.Context, req *api.DeleteContentRequest) (*emptypb.Empty, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := wire.ParseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, blobs.Delete(ctx, d)
}

func (s contentService) Status(ctx context.Context, req *api.StatusRequest) (*api.StatusResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	st, err := blobs.Status(ctx, req.GetRef())
	if err != nil {
		return nil, err
	}
	return &api.StatusResponse{Status: toWireStatus(st)}, nil
}

func (s contentService) ListStatuses(ctx context.Context, req *api.ListStatusesRequest) (*api.ListStatusesResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := blobs.ListStatuses(ctx)
	if err != nil {
		return nil, err
	}
	match, err := statusFilter(req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &api.ListStatusesResponse{}
	for _, st := range list {
		if match(st) {
			resp.Statuses = append(resp.Statuses, toWireStatus(st))
		}
	}
	return resp, nil
}

func (s contentService) Abort(ctx context.Context, req *api.AbortRequest) (*emptypb.Empty, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, blobs.Abort(ctx, req.GetRef())
}

type contentGRPC struct {
	contentService
	api.UnsafeContentServer
}

var _ api.ContentServer = contentGRPC{}

func (s contentGRPC) List(req *api.ListContentRequest, stream api.Content_ListServer) error {
	return s.list(stream.Context(), req, stream.Send)
}

func (s contentGRPC) Read(req *api.ReadContentRequest, stream api.Content_ReadServer) error {
	return s.read(stream.Context(), req, stream.Send)
}

func (s contentGRPC) Write(stream api.Content_WriteServer) error {
	return s.write(stream.Context(), stream)
}

type contentTTRPC struct{ contentService }

var _ api.TTRPCContentService = contentTTRPC{}

func (s contentTTRPC) List(ctx context.Context, req *api.ListContentRequest, stream api.TTRPCContent_ListServer) error {
	return s.list(ctx, req, stream.Send)
}

func (s contentTTRPC) Read(ctx context.Context, req *api.ReadContentRequest, stream api.TTRPCContent_ReadServer) error {
	return s.read(ctx, req, stream.Send)
}

func (s contentTTRPC) Write(ctx context.Context, stream api.TTRPCContent_WriteServer) error {
	return s.write(ctx, stream)
}

func toWireBlob(b metadata.Blob) *api.Info {
	return &api.Info{
		Digest: b.Digest.String(), Size: b.Size, Labels: b.Labels,
		CreatedAt: wire.Timestamp(b.CreatedAt), UpdatedAt: wire.Timestamp(b.UpdatedAt),
	}
}

func toWireStatus(st content.Status) *api.Status {
	return &api.Status{
		Ref: st.Ref, Offset: st.Offset, Total: st.Total, Expected: st.Expected.String(),
		StartedAt: wire.Timestamp(st.StartedAt), UpdatedAt: wire.Timestamp(st.UpdatedAt),
	}
}
