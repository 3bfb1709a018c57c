package runtime

import (
	"context"
	"strconv"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/shimapi"
)

// WithStdioOwner returns a context in which tasks and processes use only FIFOs of a user. cleat's shim refuses
// others once it has opened them.
func WithStdioOwner(ctx context.Context, uid uint32) context.Context {
	return context.WithValue(ctx, stdioOwner{}, uid)
}

type stdioOwner struct{}

// withOwner passes the owner of WithStdioOwner on to a shim. A client's value for the same key of its request is
// dropped.
func withOwner(ctx context.Context) context.Context {
	md := ttrpc.MD{}
	if old, ok := ttrpc.GetMetadata(ctx); ok {
		for key, values := range old {
			md.Set(key, values...)
		}
		delete(md, shimapi.StdioOwnerKey)
	}
	if uid, ok := ctx.Value(stdioOwner{}).(uint32); ok {
		md.Set(shimapi.StdioOwnerKey, strconv.FormatUint(uint64(uid), 10))
	}
	return ttrpc.WithMetadata(ctx, md)
}
