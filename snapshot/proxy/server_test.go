package proxy_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/proxy"
)

const (
	nameThere      = "far"
	namespaceThere = "ours"
	prefix         = "cleat-1234-"
)

// record is a snapshot of the other process.
type record struct {
	id     uint64
	parent string
	kind   snapshot.Kind
	labels map[string]string
	usage  snapshot.Usage
}

// keeper is another process that manages snapshots: containerd's API in front of a driver, with the rules
// of that API. It has one namespace.
type keeper struct {
	api.UnimplementedSnapshotsServer
	driver snapshot.Driver

	mu    sync.Mutex
	last  uint64
	snaps map[string]*record
	// before is called with the name of each call; a non-nil result is the answer.
	before func(ctx context.Context, method string) error
}

// serve answers on a socket until the returned function is called.
func (k *keeper) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	check := func(ctx context.Context, method string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("containerd-namespace"); len(got) != 1 || got[0] != namespaceThere {
			t.Errorf("%s: the namespace is %q", method, got)
		}
		k.mu.Lock()
		before := k.before
		k.mu.Unlock()
		if before == nil {
			return nil
		}
		return before(ctx, filepath.Base(method))
	}
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if r, ok := req.(interface{ GetSnapshotter() string }); !ok || r.GetSnapshotter() != nameThere {
				t.Errorf("%s: asked for another snapshotter: %v", info.FullMethod, req)
			}
			err := check(ctx, info.FullMethod)
			if err != nil {
				return nil, err
			}
			resp, err := h(ctx, req)
			return resp, errgrpc.ToGRPC(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := check(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return errgrpc.ToGRPC(h(srv, stream))
		}),
	)
	api.RegisterSnapshotsServer(s, k)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) }) // ends with stop
	return func() {
		s.Stop()
		wg.Wait()
	}
}

// parents returns the numbers of a committed snapshot and its parents.
func (k *keeper) parents(name string) (ids []uint64, err error) {
	for name != "" {
		r := k.snaps[name]
		if r == nil {
			return nil, errdefs.ErrNotFound
		}
		if r.kind != snapshot.KindCommitted {
			return nil, errdefs.ErrFailedPrecondition
		}
		ids, name = append(ids, r.id), r.parent
	}
	return ids, nil
}

func (k *keeper) make(ctx context.Context, key, parent string, kind snapshot.Kind, labels map[string]string) ([]*apitypes.Mount, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.snaps[key] != nil {
		return nil, errdefs.ErrAlreadyExists
	}
	parents, err := k.parents(parent)
	if err != nil {
		return nil, err
	}
	k.last++
	if err := k.driver.Prepare(ctx, k.last, parents, kind); err != nil {
		return nil, err
	}
	k.snaps[key] = &record{id: k.last, parent: parent, kind: kind, labels: labels}
	return k.mounts(ctx, key)
}

func (k *keeper) mounts(ctx context.Context, key string) ([]*apitypes.Mount, error) {
	r := k.snaps[key]
	if r == nil {
		return nil, errdefs.ErrNotFound
	}
	parents, err := k.parents(r.parent)
	if err != nil {
		return nil, err
	}
	ms, err := k.driver.Mounts(ctx, r.id, parents, r.kind)
	return wire(ms), err
}

func wire(ms []mount.Mount) (out []*apitypes.Mount) {
	for _, m := range ms {
		out = append(out, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}

func (k *keeper) Prepare(ctx context.Context, r *api.PrepareSnapshotRequest) (*api.PrepareSnapshotResponse, error) {
	ms, err := k.make(ctx, r.GetKey(), r.GetParent(), snapshot.KindActive, r.GetLabels())
	return &api.PrepareSnapshotResponse{Mounts: ms}, err
}

func (k *keeper) View(ctx context.Context, r *api.ViewSnapshotRequest) (*api.ViewSnapshotResponse, error) {
	ms, err := k.make(ctx, r.GetKey(), r.GetParent(), snapshot.KindView, r.GetLabels())
	return &api.ViewSnapshotResponse{Mounts: ms}, err
}

func (k *keeper) Mounts(ctx context.Context, r *api.MountsRequest) (*api.MountsResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ms, err := k.mounts(ctx, r.GetKey())
	return &api.MountsResponse{Mounts: ms}, err
}

func (k *keeper) Commit(ctx context.Context, r *api.CommitSnapshotRequest) (*emptypb.Empty, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.snaps[r.GetKey()]
	switch {
	case k.snaps[r.GetName()] != nil:
		return nil, errdefs.ErrAlreadyExists
	case v == nil:
		return nil, errdefs.ErrNotFound
	case v.kind != snapshot.KindActive:
		return nil, errdefs.ErrFailedPrecondition
	}
	u, err := k.driver.Commit(ctx, v.id)
	if err != nil {
		return nil, err
	}
	delete(k.snaps, r.GetKey())
	v.kind, v.usage, v.labels = snapshot.KindCommitted, u, r.GetLabels()
	k.snaps[r.GetName()] = v
	return &emptypb.Empty{}, nil
}

func (k *keeper) Usage(ctx context.Context, r *api.UsageRequest) (*api.UsageResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.snaps[r.GetKey()]
	if v == nil {
		return nil, errdefs.ErrNotFound
	}
	u, err := v.usage, error(nil)
	if v.kind != snapshot.KindCommitted {
		u, err = k.driver.Usage(ctx, v.id)
	}
	return &api.UsageResponse{Size: u.Size, Inodes: u.Inodes}, err
}

func (k *keeper) Remove(ctx context.Context, r *api.RemoveSnapshotRequest) (*emptypb.Empty, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.snaps[r.GetKey()]
	if v == nil {
		return nil, errdefs.ErrNotFound
	}
	for _, other := range k.snaps {
		if other.parent == r.GetKey() {
			return nil, errdefs.ErrFailedPrecondition
		}
	}
	delete(k.snaps, r.GetKey())
	return &emptypb.Empty{}, k.driver.Remove(ctx, v.id)
}

// List sends one message per snapshot.
func (k *keeper) List(_ *api.ListSnapshotsRequest, stream api.Snapshots_ListServer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, v := range k.snaps {
		if err := stream.Send(&api.ListSnapshotsResponse{Info: []*api.Info{{Name: name, Parent: v.parent, Labels: v.labels}}}); err != nil {
			return err
		}
	}
	if k.before == nil {
		return nil
	}
	return k.before(stream.Context(), "ListEnd")
}

// answers sets the function called before each call.
func (k *keeper) answers(before func(ctx context.Context, method string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = before
}

// names returns the names of the remote snapshots.
func (k *keeper) names() map[string]*record {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]*record)
	for name, v := range k.snaps {
		out[name] = v
	}
	return out
}

// socketPath is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-proxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "far.sock")
}

// open returns a driver for the process at a socket.
func open(t *testing.T, socket string) *proxy.Driver {
	t.Helper()
	d, err := proxy.Open(proxy.Config{Name: "near", Address: socket, Snapshotter: nameThere, Namespace: namespaceThere, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
