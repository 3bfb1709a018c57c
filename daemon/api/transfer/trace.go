package transfer

import (
	"context"
	"fmt"
	"strings"
	"sync"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/image/registry"
)

// trace returns what a client wants to see of its requests to a registry: on a stream of its own, or,
// as published, in the daemon's log. nil if it wants nothing.
func (t *call) trace(ctx context.Context, resolver *transfertypes.RegistryResolver) (*registry.Trace, error) {
	var out registry.Trace
	switch mode := resolver.GetHttpDebug(); mode {
	case transfertypes.HTTPDebug_DISABLED:
	case transfertypes.HTTPDebug_DEBUG:
		out.Headers = true
	case transfertypes.HTTPDebug_TRACE:
		out.Steps = true
	case transfertypes.HTTPDebug_BOTH:
		out.Headers, out.Steps = true, true
	default:
		return nil, fmt.Errorf("registry resolver: http_debug %d: %w", mode, errdefs.ErrInvalidArgument)
	}
	id := resolver.GetLogsStream()
	if id == "" {
		if !out.Headers && !out.Steps {
			return nil, nil
		}
		out.Log = func(text string) {
			t.log.Info("request to a registry", "namespace", t.namespace, "request", strings.TrimSuffix(text, "\n"))
		}
		return &out, nil
	}
	s, err := t.take(ctx, id)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	w := streams.NewWriter(s)
	out.Log = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(text)) // a client that left wants no more
	}
	return &out, nil
}
