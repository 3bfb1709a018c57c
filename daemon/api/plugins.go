package api

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	api "github.com/containerd/containerd/api/services/introspection/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/platforms"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/internal/filters"
)

// runtimePlugin is the type of the plugin that runs tasks.
const runtimePlugin = "io.containerd.runtime.v2"

// snapshotterPlugin is the type of a snapshotter.
const snapshotterPlugin = "io.containerd.snapshotter.v1"

// plugins are the parts of the daemon by the published types and ids, by which clients look up what
// there is.
func plugins(id Identity) []*api.Plugin {
	p := platforms.DefaultSpec()
	host := []*apitypes.Platform{{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}
	at := func(elem ...string) map[string]string {
		return map[string]string{"root": filepath.Join(append([]string{id.Root}, elem...)...)}
	}
	list := []*api.Plugin{
		{Type: "io.containerd.content.v1", ID: "content", Exports: at("content")},
		{
			Type: "io.containerd.metadata.v1", ID: "bolt", Requires: []string{"io.containerd.content.v1", snapshotterPlugin},
			Exports: map[string]string{"path": filepath.Join(id.Root, "meta.db"), "policy": "isolated"},
		},
		{Type: "io.containerd.differ.v1", ID: "walking", Platforms: host, Requires: []string{"io.containerd.content.v1"}},
		{Type: "io.containerd.event.v1", ID: "exchange"},
		{Type: "io.containerd.gc.v1", ID: "scheduler", Requires: []string{"io.containerd.metadata.v1"}},
		{Type: "io.containerd.internal.v1", ID: "restart", Capabilities: []string{"no", "always", "on-failure", "unless-stopped"}},
		{Type: "io.containerd.lease.v1", ID: "manager", Requires: []string{"io.containerd.metadata.v1"}},
		{Type: "io.containerd.mount-handler.v1", ID: "loop", Platforms: host},
		{Type: "io.containerd.mount-manager.v1", ID: "local"},
		{Type: "io.containerd.sandbox.controller.v1", ID: "shim", Requires: []string{runtimePlugin}},
		{Type: "io.containerd.sandbox.store.v1", ID: "local", Requires: []string{"io.containerd.metadata.v1"}},
		{Type: "io.containerd.streaming.v1", ID: "manager"},
		{Type: "io.containerd.transfer.v1", ID: "local", Platforms: host, Requires: []string{"io.containerd.lease.v1", "io.containerd.metadata.v1", "io.containerd.differ.v1"}},
		{Type: runtimePlugin, ID: "task", Platforms: host, Requires: []string{"io.containerd.event.v1", "io.containerd.metadata.v1"}},
	}
	for _, name := range id.Snapshotters {
		list = append(list, &api.Plugin{
			Type: snapshotterPlugin, ID: name, Platforms: host, Exports: at("snapshots", name),
			// Clients ask for mapped owners by labels where this is said, and change every owner
			// themselves elsewhere.
			Capabilities: []string{"remap-ids"},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(id.Unavailable)) {
		list = append(list, &api.Plugin{
			Type: snapshotterPlugin, ID: name, Platforms: host,
			Exports: at("snapshots", name), InitErr: initError(id.Unavailable[name]),
		})
	}
	for _, name := range []string{
		"containers", "content", "diff", "images", "introspection", "leases", "namespaces", "snapshots", "tasks",
	} {
		list = append(list, &api.Plugin{Type: "io.containerd.service.v1", ID: name + "-service"})
	}
	for _, name := range []string{
		"containers", "content", "diff", "events", "healthcheck", "images", "introspection",
		"leases", "mounts", "namespaces", "sandbox-controllers", "sandboxes", "snapshots", "streaming", "tasks", "transfer", "version",
	} {
		list = append(list, &api.Plugin{Type: "io.containerd.grpc.v1", ID: name})
	}
	return list
}

// pluginFields are what filters see of a plugin.
func pluginFields(p *api.Plugin) filters.Adaptor {
	return filters.AdaptorFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "type":
			return p.GetType(), true
		case "id":
			return p.GetID(), true
		case "platforms":
			var names []string
			for _, on := range p.GetPlatforms() {
				names = append(names, on.GetOS()+"/"+on.GetArchitecture())
			}
			return strings.Join(names, ","), len(names) > 0
		case "capabilities":
			return strings.Join(p.GetCapabilities(), ","), len(p.GetCapabilities()) > 0
		}
		return "", false
	})
}

// skipPlugin is the text by which clients recognise a plugin that cannot work on this host. They take any
// other error for a broken daemon.
const skipPlugin = "skip plugin"

// initError reports why something does not work; a failed precondition is the host's.
func initError(err error) *statuspb.Status {
	if err == nil {
		return nil
	}
	if errdefs.IsFailedPrecondition(err) {
		err = fmt.Errorf("%w: %s", err, skipPlugin)
	}
	return status.Convert(errgrpc.ToGRPC(err)).Proto()
}
