package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	"google.golang.org/grpc/codes"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/proto/rpc"
)

func TestCleatdTakesContainerdsCommandLine(t *testing.T) {
	d := startAsContainerd(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	pid := d.ps("c").Pid
	ctx, conn := d.grpc()
	health, err := healthapi.NewHealthClient(conn).Check(ctx, &healthapi.HealthCheckRequest{})
	if err != nil || health.Status != healthapi.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	cleatd := func(in []byte, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "cleatd"), args...)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	// publish, as shims of others run it.
	shown := watchEvents(t, d.Address)
	value, err := proto.Marshal(&apievents.TaskOOM{ContainerID: "told"})
	must(t, err)
	data, err := proto.Marshal(&anypb.Any{TypeUrl: "containerd.events.TaskOOM", Value: value})
	must(t, err)
	d.Eventually("the event is shown", func() error { // once ctr is there
		if out, err := cleatd(data, "--address", d.Address, "publish", "--topic", "/tasks/oom", "--namespace", "n"); err != nil {
			t.Fatalf("publish: %v: %s", err, out)
		}
		return inOrder(shown(), " n /tasks/oom", "told")
	})
	for _, args := range [][]string{
		{"publish", "--topic", "/x"},
		{"publish", "--topic", "/x", "--namespace", "n", "more"},
		{"-a", "/nowhere.sock", "publish", "--topic", "/x", "--namespace", "n"},
		{"config"}, {"config", "else"}, {"nonsense"},
	} {
		if out, err := cleatd(data, args...); err == nil {
			t.Errorf("cleatd %q: %s", args, out)
		}
	}
	if out, err := cleatd([]byte("no Any"), "-a", d.Address, "publish", "--topic", "/x", "--namespace", "n"); err == nil {
		t.Errorf("publish of nonsense: %s", out)
	}

	// config
	file := filepath.Join(t.TempDir(), "c.toml")
	must(t, os.WriteFile(file, []byte("version = 3\nroot = \"/srv/x\"\noom_score = 5\n"), 0o600))
	for command, want := range map[string][]string{
		"default": {"root = '/var/lib/cleat'"},
		"migrate": {"oom_score is ignored", "root = '/srv/x'"},
		"dump":    {"oom_score is ignored", "root = '/srv/x'", "log_level = 'debug'"},
	} {
		if out, err := cleatd(nil, "-c", file, "-l", "debug", "config", command); err != nil || inOrder(out, want...) != nil {
			t.Errorf("config %s: %v: %s", command, err, out)
		}
	}

	d.Stop() // SIGTERM
	if !alive(pid) {
		t.Error("the container was stopped with the daemon")
	}
	d.Begin()
	d.status("c", "running")
}

func TestWhatIsNotServedSaysItsName(t *testing.T) {
	d := Start(t)
	ctx, conn := d.grpc()
	client, err := rpc.Dial(t.Context(), d.Address+".ttrpc")
	must(t, err)
	defer client.Close()
	over := func(transport, name string, call func(context.Context) error) {
		t.Helper()
		err := call(ctx)
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), name) {
			t.Errorf("%s over %s: %v", name, transport, err)
		}
	}
	over("gRPC", "sandbox.v1.Controller", func(ctx context.Context) error {
		_, err := sandboxapi.NewControllerClient(conn).Start(ctx, &sandboxapi.ControllerStartRequest{})
		return err
	})
	over("ttrpc", "sandbox.v1.Controller", func(ctx context.Context) error {
		_, err := sandboxapi.NewTTRPCControllerClient(client).Start(ctx, &sandboxapi.ControllerStartRequest{})
		return err
	})
	over("gRPC", "mounts.v1.Mounts", func(ctx context.Context) error {
		_, err := mountsapi.NewMountsClient(conn).Info(ctx, &mountsapi.InfoRequest{})
		return err
	})
}
