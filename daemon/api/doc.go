// Package api is the wire side of cleatd: a file a service, each method decoding its request,
// making one call to a store or to daemon/service, and encoding the answer. There is no logic here.
//
// Every containerd service is registered twice by one implementation (register.go): on gRPC and on
// ttrpc. The natives (native.go) are on ttrpc only. Errors leave with the status code of their
// errdefs class.
package api

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/metadata"

	meta "github.com/cleatproject/cleat/metadata"
)

// Keys under which a request's namespace travels.
const (
	grpcNamespace  = "containerd-namespace"
	ttrpcNamespace = "containerd-namespace-ttrpc"
)

// namespaceOf returns the request's namespace on either transport. A request without one is
// errdefs.ErrFailedPrecondition, as clients of the API expect.
func namespaceOf(ctx context.Context) (string, error) {
	ns, ok := ttrpc.GetMetadataValue(ctx, ttrpcNamespace)
	if !ok {
		if md, has := metadata.FromIncomingContext(ctx); has {
			if v := md.Get(grpcNamespace); len(v) > 0 {
				ns = v[0]
			}
		}
	}
	return checkNamespace(ctx, ns)
}

// checkNamespace checks the name a request gives, and that its user may work in it.
func checkNamespace(ctx context.Context, ns string) (string, error) {
	if ns == "" {
		return "", fmt.Errorf("namespace is required: %w", errdefs.ErrFailedPrecondition)
	}
	if err := meta.ValidateID(ns); err != nil {
		return "", fmt.Errorf("namespace: %w", err)
	}
	return ns, admit(ctx, ns)
}
