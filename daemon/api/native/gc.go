package native

import (
	"context"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// gcService is cleat.v1.GC, on ttrpc only.
type gcService struct{ svc *service.Service }

func (s gcService) register(srv *ttrpc.Server) {
	srv.RegisterService(cleatapi.GCService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Collect": rpc.Unary(s.collect),
		"Why":     rpc.Unary(s.why),
		"Stats":   rpc.Unary(s.stats),
	}})
}

func (s gcService) collect(ctx context.Context, req *cleatapi.CollectRequest) (*cleatapi.CollectResponse, error) {
	if err := access.AllowAll(ctx, "collect garbage"); err != nil {
		return nil, err
	}
	if req.DryRun {
		return s.svc.GC.Garbage(ctx)
	}
	return s.svc.GC.Collect(ctx)
}

func (s gcService) why(ctx context.Context, req *cleatapi.WhyRequest) (*cleatapi.WhyResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	resp := &cleatapi.WhyResponse{}
	for _, name := range req.Names {
		kept, err := s.svc.Why(ctx, ns, name)
		if err != nil {
			return nil, err
		}
		resp.Objects = append(resp.Objects, kept...)
	}
	return resp, nil
}

func (s gcService) stats(context.Context, *cleatapi.GCStatsRequest) (*cleatapi.GCStatsResponse, error) {
	return s.svc.GC.Stats(), nil
}
