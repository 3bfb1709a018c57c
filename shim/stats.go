package shim

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// Stats reads the container's cgroup: io.containerd.cgroups.v2.Metrics on a unified host, else v1.
func (s *Server) Stats(_ context.Context, req *task.StatsRequest) (*task.StatsResponse, error) {
	c, err := s.container(req.Id)
	if err != nil {
		return nil, err
	}
	if st, child := c.init.snapshot(); child == nil || st == stopped || st == deleted {
		return nil, fmt.Errorf("stats of %s: task is %s: %w", c.id, st, errdefs.ErrFailedPrecondition)
	}
	c.mu.Lock()
	cg := c.cgroup
	c.mu.Unlock()
	metrics := cg.Metrics()
	if metrics == nil {
		return nil, fmt.Errorf("stats of %s: cgroup is unknown: %w", c.id, errdefs.ErrUnavailable)
	}
	url := "io.containerd.cgroups.v1.Metrics"
	if cg.Unified != "" {
		url = "io.containerd.cgroups.v2.Metrics"
	}
	value, err := rpc.Marshal(metrics)
	if err != nil {
		return nil, err
	}
	return &task.StatsResponse{Stats: &types.Any{TypeUrl: url, Value: value}}, nil
}
