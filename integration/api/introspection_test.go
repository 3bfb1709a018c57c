package api

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestIntrospection(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	c := introspection.NewIntrospectionClient(conn)

	for filter, root := range map[string]string{
		"type==io.containerd.snapshotter.v1,id==overlayfs": filepath.Join(d.Root, "snapshots", "overlayfs"),
		"type==io.containerd.content.v1":                   filepath.Join(d.Root, "content"),
		"type==io.containerd.runtime.v2,platforms~=linux":  "",
		"type==io.containerd.grpc.v1,id==tasks":            "",
		"type==io.containerd.event.v1":                     "",
		"type==io.containerd.metadata.v1":                  "",
	} {
		resp, err := c.Plugins(ctx, &introspection.PluginsRequest{Filters: []string{filter}})
		harness.Must(t, err)
		if len(resp.Plugins) != 1 || resp.Plugins[0].Exports["root"] != root || resp.Plugins[0].InitErr != nil {
			t.Errorf("%s: %v", filter, resp.Plugins)
		} else if _, err := os.Stat(root); root != "" && err != nil {
			t.Errorf("%s exports a missing path: %v", filter, err)
		}
	}

	server, err := c.Server(ctx, &emptypb.Empty{})
	harness.Must(t, err)
	ns, err := os.Stat("/proc/self/ns/pid")
	harness.Must(t, err)
	if server.UUID == "" || int(server.Pid) != d.Cmd.Process.Pid || server.Pidns != ns.Sys().(*syscall.Stat_t).Ino {
		t.Errorf("server: %v", server)
	}
	d.Restart()
	var again *introspection.ServerResponse
	d.Eventually("the client is connected again", func() (err error) {
		again, err = c.Server(ctx, &emptypb.Empty{})
		return err
	})
	if again.UUID != server.UUID || again.Pid == server.Pid {
		t.Errorf("server after a restart: %v, before %v", again, server)
	}
}

func TestPluginInfo_DescribesRuntime(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	c := introspection.NewIntrospectionClient(conn)
	ask := func(path string) (*types.RuntimeInfo, error) {
		options, err := anypb.New(&types.RuntimeRequest{RuntimePath: path})
		harness.Must(t, err)
		resp, err := c.PluginInfo(ctx, &introspection.PluginInfoRequest{Type: "io.containerd.runtime.v2", ID: "task", Options: options})
		if err != nil {
			return nil, err
		}
		var info types.RuntimeInfo
		harness.Must(t, resp.Extra.UnmarshalTo(&info))
		return &info, nil
	}
	for _, path := range []string{"", "io.containerd.runc.v2", harness.Binary("containerd-shim-cleat-v2")} {
		if info, err := ask(path); err != nil || info.Name != "io.containerd.cleat.v2" || info.Features == nil {
			t.Errorf("%q: %v, %v", path, info, err)
		}
	}
	if _, err := ask("io.containerd.nothing.v1"); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown runtime: %v", err)
	}
	for _, req := range []struct {
		kind, id string
		options  *anypb.Any
		want     codes.Code
	}{
		{"io.containerd.grpc.v1", "tasks", nil, codes.OK},
		{"io.containerd.grpc.v1", "tasks", &anypb.Any{}, codes.Unimplemented},
		{"io.containerd.grpc.v1", "nothing", nil, codes.NotFound},
		{"io.containerd.runtime.v2", "task", &anypb.Any{TypeUrl: "x"}, codes.InvalidArgument},
	} {
		_, err := c.PluginInfo(ctx, &introspection.PluginInfoRequest{Type: req.kind, ID: req.id, Options: req.options})
		if status.Code(err) != req.want {
			t.Errorf("%s %s: %v, want %v", req.kind, req.id, err, req.want)
		}
	}
}
