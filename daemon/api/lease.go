package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	meta "github.com/cleatproject/cleat/metadata"
)

// grpcLease is the published key of the lease that a request works under: what it makes is put into
// that lease. It travels on gRPC only.
const grpcLease = "containerd-lease"

// underLease returns a context that carries the request's lease to the database.
func underLease(ctx context.Context) context.Context {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(grpcLease); len(v) > 0 && v[0] != "" {
			return meta.WithLease(ctx, v[0])
		}
	}
	return ctx
}

// leasedStream is a stream whose context carries its lease.
type leasedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream's context is how gRPC hands it on
}

// Context implements grpc.ServerStream.
func (s leasedStream) Context() context.Context { return s.ctx }
