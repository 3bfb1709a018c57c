package api

import (
	"context"
	"errors"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/policy"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/runtime"
)

// guard enforces the policies of users on both transports, before a request reaches its service. A method without
// a rule is refused.
type guard struct {
	db        *metadata.DB
	snapshots *snapshots.Store
	cgroups   string // the parent of containers that choose none
	rules     map[string]rule
}

func newGuard(p Parts) guard {
	return guard{db: p.DB, snapshots: p.Snapshots, cgroups: p.CgroupParent, rules: rules()}
}

// rule is what a method asks of a user with a policy. It may replace parts of the request by their canonical form.
type rule func(ctx context.Context, g guard, p *policy.Policy, req any) error

// check checks a request, and returns the context to serve it with.
func (g guard) check(ctx context.Context, method string, req any) (context.Context, error) {
	peer := access.PeerOf(ctx)
	if peer == nil || peer.Policy == nil {
		return ctx, nil
	}
	check, ok := g.rules[method]
	if !ok {
		return ctx, peer.Policy.Refuse(method, "")
	}
	err := check(ctx, g, peer.Policy, rpc.Unwrap(req))
	if errors.Is(err, errDenied) {
		err = peer.Policy.Refuse(method, "")
	}
	if err != nil {
		return ctx, err
	}
	return runtime.WithStdioOwner(ctx, peer.UID), nil
}

// errDenied is the answer of deny.
var errDenied = errors.New("denied")

// unary is the interceptor of gRPC.
func (g guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := g.check(access.UnderLease(ctx), info.FullMethod, req)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	resp, err := handle(ctx, req)
	return resp, rpc.ToWire(err)
}

// stream is the interceptor of gRPC for streams. Each message that comes is checked.
func (g guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(srv, guardedStream{access.NewLeasedStream(ss), g, info.FullMethod})
}

type guardedStream struct {
	grpc.ServerStream
	guard  guard
	method string
}

func (s guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if _, err := s.guard.check(s.Context(), s.method, m); err != nil {
		return rpc.ToWire(err)
	}
	return nil
}

// ttrpcUnary is the interceptor of ttrpc. Its streams have none; rules gives them no conditions, see
// TestStreams_HaveNoConditions.
func (g guard) ttrpcUnary(ctx context.Context, decode ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	peer := access.PeerOf(ctx)
	if peer != nil && peer.Policy != nil {
		ctx = runtime.WithStdioOwner(ctx, peer.UID)
	}
	resp, err := method(ctx, func(v any) error {
		if err := decode(v); err != nil {
			return err
		}
		_, err := g.check(ctx, info.FullMethod, v)
		return err
	})
	return resp, rpc.ToWire(err)
}
