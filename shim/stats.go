package shim

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/task"
)

// Stats reads the container's cgroup.
func (s *Server) Stats(_ context.Context, req *task.StatsRequest) (*task.StatsResponse, error) {
	return nil, fmt.Errorf("stats: %w", errdefs.ErrNotImplemented)
}
