package native

import (
	"context"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// The calls of cleat.v1.GC.

func (s native) collect(ctx context.Context, req *cleatapi.CollectRequest) (*cleatapi.CollectResponse, error) {
	if err := access.AllowAll(ctx, "collect garbage"); err != nil {
		return nil, err
	}
	if req.DryRun {
		return s.GC.Garbage(ctx)
	}
	return s.GC.Collect(ctx)
}

func (s native) why(ctx context.Context, req *cleatapi.WhyRequest) (*cleatapi.WhyResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	resp := &cleatapi.WhyResponse{}
	for _, name := range req.Names {
		img, err := s.Images.FullName(ctx, ns, name)
		if err != nil {
			return nil, err
		}
		kept, err := s.GC.Why(ctx, ns, name, img)
		if err != nil {
			return nil, err
		}
		resp.Objects = append(resp.Objects, kept...)
	}
	return resp, nil
}

func (s native) stats(context.Context, *cleatapi.GCStatsRequest) (*cleatapi.GCStatsResponse, error) {
	return s.GC.Stats(), nil
}
