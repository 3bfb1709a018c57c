package containers

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// Metric is the cgroup statistics of one task.
type Metric struct {
	ID    string
	Stats *types.Any
}

// metricsLimit bounds the time in which a shim reports on its container. It reads a few files: one that
// takes longer is stuck.
const metricsLimit = time.Second

// Metrics asks the shims of a namespace's running tasks for statistics, all at once. One that does
// not answer is left out: statistics are a sample, and one stuck shim must not hide the others.
// Filters see "id".
func (s *Service) Metrics(ctx context.Context, namespace string, match filters.Filter) []Metric {
	ctx, cancel := context.WithTimeout(ctx, metricsLimit)
	defer cancel()
	list := s.tasks.List(namespace)
	out := make([]Metric, len(list))
	var wg sync.WaitGroup
	for i, t := range list {
		fields := filters.AdaptorFunc(func(path []string) (string, bool) {
			return t.ID(), len(path) == 1 && path[0] == "id"
		})
		info := t.Info()
		if !match.Match(fields) || info.Status == types.Status_STOPPED || info.Link != runtime.Ready {
			continue
		}
		wg.Go(func() {
			stats, err := t.Stats(ctx)
			if err != nil {
				s.log.Debug("no statistics of a task", "id", t.ID(), "namespace", namespace, "error", err)
				return
			}
			out[i] = Metric{ID: t.ID(), Stats: stats}
		})
	}
	wg.Wait()
	var answered []Metric
	for _, m := range out {
		if m.Stats != nil {
			answered = append(answered, m)
		}
	}
	return answered
}

// windowsResources is the end of the type of resources that no Linux container has.
const windowsResources = "/WindowsResources"

// UpdateTask changes a task's resources, which are of the runtime's type.
func (s *Service) UpdateTask(ctx context.Context, t *runtime.Task, resources *types.Any, annotations map[string]string) error {
	switch {
	case resources == nil:
		return fmt.Errorf("update %s: no resources: %w", t.ID(), errdefs.ErrInvalidArgument)
	case strings.HasSuffix(resources.TypeUrl, windowsResources):
		return fmt.Errorf("update %s: resources of Windows for a Linux container: %w", t.ID(), errdefs.ErrInvalidArgument)
	}
	return t.Update(ctx, resources, annotations)
}
