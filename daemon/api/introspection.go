package api

import (
	"context"
	"maps"
	"os"
	"slices"

	api "github.com/containerd/containerd/api/services/introspection/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/platforms"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/metadata/filters"
)

// Identity is what the daemon says of itself.
type Identity struct {
	Version, Revision, UUID string
	// Snapshotters are the names of the drivers that work on this host.
	Snapshotters []string
	// Unavailable are those that do not, with the reason.
	Unavailable map[string]error
}

// introspection is containerd.services.introspection.v1.
type introspection struct {
	id Identity
	api.UnsafeIntrospectionServer
}

var (
	_ api.IntrospectionServer       = introspection{}
	_ api.TTRPCIntrospectionService = introspection{}
)

const kindSnapshotter = "io.containerd.snapshotter.v1"

// Plugins lists what clients look up: the services, the runtime and the snapshotters.
func (s introspection) Plugins(_ context.Context, req *api.PluginsRequest) (*api.PluginsResponse, error) {
	match, err := filters.ParseAll(req.GetFilters()...)
	if err != nil {
		return nil, err
	}
	p := platforms.DefaultSpec()
	host := []*apitypes.Platform{{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}
	resp := &api.PluginsResponse{}
	add := func(kind, id string, on []*apitypes.Platform, failure error) {
		fields := filters.AdaptorFunc(func(path []string) (string, bool) {
			switch path[0] {
			case "type":
				return kind, true
			case "id":
				return id, true
			}
			return "", false
		})
		if match.Match(fields) {
			plugin := &api.Plugin{Type: kind, ID: id, Platforms: on, InitErr: initError(failure)}
			if kind == kindSnapshotter && failure == nil {
				// Clients ask for mapped owners by labels where this is said, and change every owner
				// themselves elsewhere.
				plugin.Capabilities = []string{"remap-ids"}
			}
			resp.Plugins = append(resp.Plugins, plugin)
		}
	}
	add("io.containerd.content.v1", "content", nil, nil)
	add("io.containerd.differ.v1", "walking", host, nil)
	add("io.containerd.metadata.v1", "bolt", nil, nil)
	add("io.containerd.runtime.v2", "task", host, nil)
	for _, name := range s.id.Snapshotters {
		add(kindSnapshotter, name, host, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(s.id.Unavailable)) {
		add(kindSnapshotter, name, host, s.id.Unavailable[name])
	}
	for _, id := range []string{
		"containers", "content", "diff", "events", "healthcheck", "images", "introspection",
		"leases", "namespaces", "sandboxes", "snapshots", "tasks", "version",
	} {
		add("io.containerd.grpc.v1", id, nil, nil)
	}
	return resp, nil
}

// initError tells why something does not work; a precondition that fails is what clients show as
// skipped.
func initError(err error) *statuspb.Status {
	if err == nil {
		return nil
	}
	return status.Convert(errgrpc.ToGRPC(err)).Proto()
}

func (s introspection) Server(context.Context, *emptypb.Empty) (*api.ServerResponse, error) {
	return &api.ServerResponse{UUID: s.id.UUID, Pid: uint64(os.Getpid())}, nil
}

func (s introspection) PluginInfo(context.Context, *api.PluginInfoRequest) (*api.PluginInfoResponse, error) {
	return nil, errdefs.ErrNotImplemented
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
