package access

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	meta "github.com/cleatproject/cleat/metadata"
)

// GRPCLease is the published key of the lease that a request works under: what it makes is put into
// that lease. It travels on gRPC only.
const GRPCLease = "containerd-lease"

// UnderLease returns a context that carries the request's lease to the database.
func UnderLease(ctx context.Context) context.Context {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(GRPCLease); len(v) > 0 && v[0] != "" {
			return meta.WithLease(ctx, v[0])
		}
	}
	return ctx
}

// LeasedStream is a stream whose context carries its lease.
type LeasedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream's context is how gRPC hands it on
}

// Context implements grpc.ServerStream.
func (s LeasedStream) Context() context.Context { return s.ctx }

// NewLeasedStream returns a stream whose context carries the lease of its request.
func NewLeasedStream(s grpc.ServerStream) LeasedStream {
	return LeasedStream{s, UnderLease(s.Context())}
}
