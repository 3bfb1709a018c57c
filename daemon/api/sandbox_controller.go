package api

import (
	"context"
	"fmt"
	"time"

	api "github.com/containerd/containerd/api/services/sandbox/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// sandboxController is the Controller of containerd.services.sandbox.v1. What changes something goes
// to daemon/service/containers/sandbox_run.go, the rest to the runtime's sandbox.
type sandboxController struct {
	sandboxes *containers.Sandboxes
	api.UnsafeControllerServer
}

var (
	_ api.ControllerServer       = sandboxController{}
	_ api.TTRPCControllerService = sandboxController{}
)

// named is what every request of the Controller says.
type named interface {
	GetSandboxID() string
	GetSandboxer() string
}

func (s sandboxController) get(ctx context.Context, req named) (*runtime.Sandbox, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.sandboxes.Get(ns, req.GetSandboxer(), req.GetSandboxID())
}

func (s sandboxController) Create(ctx context.Context, req *api.ControllerCreateRequest) (*api.ControllerCreateResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	var described metadata.Sandbox
	if req.GetSandbox() != nil {
		described = fromWireSandbox(req.GetSandbox())
	}
	err = s.sandboxes.Launch(ctx, ns, req.GetSandboxer(), described, runtime.SandboxOptions{
		ID: req.GetSandboxID(), Rootfs: wire.FromMounts(req.GetRootfs()), Options: wire.ShimAny(req.GetOptions()),
		NetNS: req.GetNetnsPath(), Annotations: req.GetAnnotations(),
	})
	if err != nil {
		return nil, err
	}
	return &api.ControllerCreateResponse{SandboxID: req.GetSandboxID()}, nil
}

func (s sandboxController) Start(ctx context.Context, req *api.ControllerStartRequest) (*api.ControllerStartResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	started, b, err := s.sandboxes.Start(ctx, ns, req.GetSandboxer(), req.GetSandboxID())
	if err != nil {
		return nil, err
	}
	address, version, err := b.Address()
	if err != nil {
		return nil, err
	}
	return &api.ControllerStartResponse{
		SandboxID: req.GetSandboxID(), Pid: started.Pid, CreatedAt: wire.Timestamp(started.CreatedAt.Time()),
		Address: address, Version: version, Spec: wire.FromShimAny(started.Spec),
	}, nil
}

func (s sandboxController) Platform(ctx context.Context, req *api.ControllerPlatformRequest) (*api.ControllerPlatformResponse, error) {
	b, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	p, err := b.Platform(ctx)
	if err != nil {
		return nil, err
	}
	return &api.ControllerPlatformResponse{Platform: &apitypes.Platform{
		OS: p.Os, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OsVersion, OSFeatures: p.OsFeatures,
	}}, nil
}

func (s sandboxController) Stop(ctx context.Context, req *api.ControllerStopRequest) (*api.ControllerStopResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(req.GetTimeoutSecs()) * time.Second
	return &api.ControllerStopResponse{}, s.sandboxes.Stop(ctx, ns, req.GetSandboxer(), req.GetSandboxID(), timeout)
}

func (s sandboxController) Wait(ctx context.Context, req *api.ControllerWaitRequest) (*api.ControllerWaitResponse, error) {
	b, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	exit, err := b.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &api.ControllerWaitResponse{ExitStatus: exit.Status, ExitedAt: wire.Timestamp(exit.At)}, nil
}

func (s sandboxController) Status(ctx context.Context, req *api.ControllerStatusRequest) (*api.ControllerStatusResponse, error) {
	b, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	st, err := b.Status(ctx, req.GetVerbose())
	if err != nil {
		return nil, err
	}
	address, version, err := b.Address()
	if err != nil {
		return nil, err
	}
	return &api.ControllerStatusResponse{
		SandboxID: req.GetSandboxID(), Pid: st.Pid, State: st.State, Info: st.Info, CreatedAt: wire.Timestamp(st.CreatedAt.Time()),
		ExitedAt: wire.Timestamp(st.ExitedAt.Time()), Extra: wire.FromShimAny(st.Extra), Address: address, Version: version,
	}, nil
}

func (s sandboxController) Shutdown(ctx context.Context, req *api.ControllerShutdownRequest) (*api.ControllerShutdownResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &api.ControllerShutdownResponse{}, s.sandboxes.Shutdown(ctx, ns, req.GetSandboxer(), req.GetSandboxID())
}

func (s sandboxController) Metrics(ctx context.Context, req *api.ControllerMetricsRequest) (*api.ControllerMetricsResponse, error) {
	b, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	m, err := b.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return &api.ControllerMetricsResponse{Metrics: &apitypes.Metric{
		Timestamp: wire.Timestamp(m.Timestamp.Time()), ID: m.Id, Data: wire.FromShimAny(m.Data),
	}}, nil
}

func (s sandboxController) Update(ctx context.Context, req *api.ControllerUpdateRequest) (*api.ControllerUpdateResponse, error) {
	b, err := s.get(ctx, req)
	if err != nil {
		return nil, err
	}
	record, err := proto.Marshal(req.GetSandbox())
	if err != nil {
		return nil, fmt.Errorf("update sandbox %s: %w", req.GetSandboxID(), err)
	}
	return &api.ControllerUpdateResponse{}, b.Update(ctx, record, req.GetFields())
}
