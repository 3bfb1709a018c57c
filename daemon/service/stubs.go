package service

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

func (s *Service) MountImage(ctx context.Context, ns string, req *cleatapi.MountImageRequest) (*cleatapi.MountImageResponse, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) UnmountImage(ctx context.Context, ns string, req *cleatapi.UnmountImageRequest) error {
	return errdefs.ErrNotImplemented
}
func (s *Service) ImageMounts(ctx context.Context, ns string) ([]*cleatapi.ImageMount, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) ImageUsage(ctx context.Context, ns string, names []string) ([]*cleatapi.ImageUsage, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) LabelImage(ctx context.Context, ns, name string, labels map[string]string) (*cleatapi.Image, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) Referrers(ctx context.Context, req *cleatapi.ReferrersRequest) (*cleatapi.ReferrersResponse, error) {
	return nil, errdefs.ErrNotImplemented
}
