package service

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

func (s *Service) ImageUsage(ctx context.Context, ns string, names []string) ([]*cleatapi.ImageUsage, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) LabelImage(ctx context.Context, ns, name string, labels map[string]string) (*cleatapi.Image, error) {
	return nil, errdefs.ErrNotImplemented
}
func (s *Service) Referrers(ctx context.Context, req *cleatapi.ReferrersRequest) (*cleatapi.ReferrersResponse, error) {
	return nil, errdefs.ErrNotImplemented
}
