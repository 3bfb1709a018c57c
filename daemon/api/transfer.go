package api

import (
	"context"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// The calls of cleat.v1.Images that move images between this host and registries or files. Streams
// carry no metadata on ttrpc, so that these name their namespace in the request.

func (s native) pull(ctx context.Context, req *cleatapi.PullRequest, send func(*cleatapi.TransferProgress) error) error {
	ns, err := checkNamespace(ctx, req.Namespace)
	if err != nil {
		return err
	}
	return s.svc.Pull(ctx, ns, req, send)
}

func (s native) push(ctx context.Context, req *cleatapi.PushRequest, send func(*cleatapi.TransferProgress) error) error {
	ns, err := checkNamespace(ctx, req.Namespace)
	if err != nil {
		return err
	}
	return s.svc.Push(ctx, ns, req, send)
}

func (s native) tagImage(ctx context.Context, req *cleatapi.TagImageRequest) (*cleatapi.TagImageResponse, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := s.svc.TagImage(ctx, ns, req.Source, req.Target)
	return &cleatapi.TagImageResponse{Image: img}, err
}

func (s native) exportImages(ctx context.Context, req *cleatapi.ExportRequest) (*cleatapi.ExportResponse, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &cleatapi.ExportResponse{}, s.svc.Export(ctx, ns, req)
}
