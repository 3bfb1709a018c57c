package native

import (
	"context"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// The calls of cleat.v1.Images that make images of others, and that look into them.

func (s native) commitImage(ctx context.Context, req *cleatapi.CommitRequest) (*cleatapi.CommitResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.Containers.Commit(ctx, ns, req)
	return &cleatapi.CommitResponse{Image: img}, err
}

func (s native) convertImage(ctx context.Context, req *cleatapi.ConvertRequest, send func(*cleatapi.TransferProgress) error) error {
	ns, err := access.CheckNamespace(ctx, req.Namespace)
	if err != nil {
		return err
	}
	return transferring(ctx, send, func(ctx context.Context, p *progress) (*cleatapi.Image, error) {
		return s.Images.Convert(ctx, ns, req, p.Part)
	})
}

func (s native) mountImage(ctx context.Context, req *cleatapi.MountImageRequest) (*cleatapi.MountImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.Images.Mount(ctx, ns, req)
}

func (s native) unmountImage(ctx context.Context, req *cleatapi.UnmountImageRequest) (*cleatapi.UnmountImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &cleatapi.UnmountImageResponse{}, s.Images.Unmount(ctx, ns, req)
}

func (s native) listImageMounts(ctx context.Context, _ *cleatapi.ListImageMountsRequest) (*cleatapi.ListImageMountsResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.Images.Mounts(ctx, ns)
	return &cleatapi.ListImageMountsResponse{Mounts: list}, err
}

func (s native) imageUsage(ctx context.Context, req *cleatapi.ImageUsageRequest) (*cleatapi.ImageUsageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.Images.Usage(ctx, ns, req.Images)
	return &cleatapi.ImageUsageResponse{Images: list}, err
}

func (s native) labelImage(ctx context.Context, req *cleatapi.LabelImageRequest) (*cleatapi.LabelImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.Images.Label(ctx, ns, req.Name, req.Labels)
	return &cleatapi.LabelImageResponse{Image: img}, err
}

func (s native) referrers(ctx context.Context, req *cleatapi.ReferrersRequest) (*cleatapi.ReferrersResponse, error) {
	if _, err := access.NamespaceOf(ctx); err != nil {
		return nil, err
	}
	return s.Transfers.Referrers(ctx, req)
}
