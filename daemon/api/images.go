package api

import (
	"context"

	api "github.com/containerd/containerd/api/services/images/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/metadata"
)

// imagesService is containerd.services.images.v1.
type imagesService struct {
	db     *metadata.DB
	images *images.Store
	gc     *gc.Collector
	api.UnsafeImagesServer
}

var (
	_ api.ImagesServer       = imagesService{}
	_ api.TTRPCImagesService = imagesService{}
)

func (s imagesService) Get(ctx context.Context, req *api.GetImageRequest) (*api.GetImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var img metadata.Image
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		img, err = tx.Images(ns).Get(req.GetName())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.GetImageResponse{Image: toWireImage(img)}, nil
}

func (s imagesService) List(ctx context.Context, req *api.ListImagesRequest) (*api.ListImagesResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var list []metadata.Image
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Images(ns).List(req.GetFilters()...)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &api.ListImagesResponse{}
	for _, img := range list {
		resp.Images = append(resp.Images, toWireImage(img))
	}
	return resp, nil
}

func (s imagesService) Create(ctx context.Context, req *api.CreateImageRequest) (*api.CreateImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.images.Create(ctx, ns, fromWireImage(req.GetImage()), wire.Time(req.GetSourceDateEpoch()))
	if err != nil {
		return nil, err
	}
	return &api.CreateImageResponse{Image: toWireImage(img)}, nil
}

func (s imagesService) Update(ctx context.Context, req *api.UpdateImageRequest) (*api.UpdateImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.images.Update(ctx, ns, fromWireImage(req.GetImage()), req.GetUpdateMask().GetPaths(), wire.Time(req.GetSourceDateEpoch()))
	if err != nil {
		return nil, err
	}
	return &api.UpdateImageResponse{Image: toWireImage(img)}, nil
}

func (s imagesService) Delete(ctx context.Context, req *api.DeleteImageRequest) (*emptypb.Empty, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var target digest.Digest
	if t := req.GetTarget(); t != nil {
		if target, err = wire.ParseDigest(t.GetDigest()); err != nil {
			return nil, err
		}
	}
	if err := s.images.Delete(ctx, ns, req.GetName(), target); err != nil || !req.GetSync() {
		return &emptypb.Empty{}, err
	}
	_, err = s.gc.Collect(ctx)
	return &emptypb.Empty{}, err
}

func toWireImage(v metadata.Image) *api.Image {
	return &api.Image{
		Name: v.Name, Labels: v.Labels, Target: wire.ToDescriptor(v.Target),
		CreatedAt: wire.Timestamp(v.CreatedAt), UpdatedAt: wire.Timestamp(v.UpdatedAt),
	}
}

func fromWireImage(v *api.Image) metadata.Image {
	return metadata.Image{Name: v.GetName(), Labels: v.GetLabels(), Target: wire.FromDescriptor(v.GetTarget())}
}
