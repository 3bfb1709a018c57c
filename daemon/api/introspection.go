package api

import (
	"context"
	"fmt"
	"os"
	"syscall"

	api "github.com/containerd/containerd/api/services/introspection/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/runtime"
)

// Identity is what the daemon says of itself.
type Identity struct {
	Version, Revision, UUID string
	// Snapshotters are the names of the drivers that work on this host.
	Snapshotters []string
	// Unavailable are those that do not, with the reason.
	Unavailable map[string]error
	// Root is the daemon's root directory, which plugins export theirs below.
	Root string
}

// introspection is containerd.services.introspection.v1; plugins.go has what it lists.
type introspection struct {
	tasks *runtime.Manager
	id    Identity
	api.UnsafeIntrospectionServer
}

var (
	_ api.IntrospectionServer       = introspection{}
	_ api.TTRPCIntrospectionService = introspection{}
)

// Plugins lists the plugins that match one of the filters, whose fields are type, id, platforms and
// capabilities.
func (s introspection) Plugins(_ context.Context, req *api.PluginsRequest) (*api.PluginsResponse, error) {
	match, err := filters.ParseAll(req.GetFilters()...)
	if err != nil {
		return nil, err
	}
	resp := &api.PluginsResponse{}
	for _, p := range plugins(s.id) {
		if match.Match(pluginFields(p)) {
			resp.Plugins = append(resp.Plugins, p)
		}
	}
	return resp, nil
}

func (s introspection) Server(context.Context, *emptypb.Empty) (*api.ServerResponse, error) {
	ns, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("read the pid namespace: %w", err)
	}
	resp := &api.ServerResponse{UUID: s.id.UUID, Pid: uint64(os.Getpid())}
	if st, ok := ns.Sys().(*syscall.Stat_t); ok {
		resp.Pidns = st.Ino
	}
	return resp, nil
}

// PluginInfo describes one plugin. The runtime's describes the shim that the options, a
// containerd.types.RuntimeRequest, name.
func (s introspection) PluginInfo(ctx context.Context, req *api.PluginInfoRequest) (*api.PluginInfoResponse, error) {
	for _, p := range plugins(s.id) {
		if p.GetType() != req.GetType() || p.GetID() != req.GetID() {
			continue
		}
		resp := &api.PluginInfoResponse{Plugin: p}
		var err error
		switch {
		case p.GetType() == runtimePlugin:
			if err := access.AllowAll(ctx, "describe a runtime"); err != nil {
				return nil, err
			}
			resp.Extra, err = s.runtimeInfo(ctx, req.GetOptions())
		case req.GetOptions() != nil:
			err = fmt.Errorf("plugin %s %s: it takes no options: %w", p.GetType(), p.GetID(), errdefs.ErrNotImplemented)
		}
		return resp, err
	}
	return nil, fmt.Errorf("plugin %s %s: %w", req.GetType(), req.GetID(), errdefs.ErrNotFound)
}

func (s introspection) runtimeInfo(ctx context.Context, options *anypb.Any) (*anypb.Any, error) {
	var req apitypes.RuntimeRequest
	if options != nil {
		if err := options.UnmarshalTo(&req); err != nil {
			return nil, fmt.Errorf("options of the runtime plugin: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	info, err := s.tasks.Describe(ctx, req.GetRuntimePath(), wire.ShimAny(req.GetOptions()))
	if err != nil {
		return nil, err
	}
	return wire.FromShimAny(info), nil
}

// version is containerd.services.version.v1.
type version struct {
	id Identity
	versionapi.UnsafeVersionServer
}

var (
	_ versionapi.VersionServer       = version{}
	_ versionapi.TTRPCVersionService = version{}
)

func (s version) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: s.id.Version, Revision: s.id.Revision}, nil
}
