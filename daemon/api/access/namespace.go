package access

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/metadata"

	"github.com/cleatproject/cleat/internal/identifier"
)

// Keys under which a request's namespace travels.
const (
	GRPCNamespace  = "containerd-namespace"
	TTRPCNamespace = "containerd-namespace-ttrpc"
)

// NamespaceOf returns the request's namespace on either transport. A request without one is
// errdefs.ErrFailedPrecondition, as clients of the API expect.
func NamespaceOf(ctx context.Context) (string, error) {
	ns, ok := ttrpc.GetMetadataValue(ctx, TTRPCNamespace)
	if !ok {
		if md, has := metadata.FromIncomingContext(ctx); has {
			if v := md.Get(GRPCNamespace); len(v) > 0 {
				ns = v[0]
			}
		}
	}
	return CheckNamespace(ctx, ns)
}

// CheckNamespace checks the name a request gives, and that its user may work in it.
func CheckNamespace(ctx context.Context, ns string) (string, error) {
	if ns == "" {
		return "", fmt.Errorf("namespace is required: %w", errdefs.ErrFailedPrecondition)
	}
	if err := identifier.Check(ns); err != nil {
		return "", fmt.Errorf("namespace: %w", err)
	}
	return ns, Allow(ctx, ns)
}
