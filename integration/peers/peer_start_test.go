package peers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	"google.golang.org/grpc/codes"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
)

func TestCleatd_AcceptsContainerdCommandLine(t *testing.T) {
	t.Parallel()
	d := startAsContainerd(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	pid := d.Ps("c").Pid
	ctx, conn := fixture.GRPC(d)
	health, err := healthapi.NewHealthClient(conn).Check(ctx, &healthapi.HealthCheckRequest{})
	if err != nil || health.Status != healthapi.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}
	cleatd := func(in []byte, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), harness.Binary("cleatd"), args...)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	// publish, as foreign shims run it.
	shown := watchEvents(t, d.Address)
	value, err := proto.Marshal(&apievents.TaskOOM{ContainerID: "published"})
	harness.Must(t, err)
	data, err := proto.Marshal(&anypb.Any{TypeUrl: "containerd.events.TaskOOM", Value: value})
	harness.Must(t, err)
	d.Eventually("the event is shown", func() error { // as soon as ctr has subscribed
		if out, err := cleatd(data, "--address", d.Address, "publish", "--topic", "/tasks/oom", "--namespace", "n"); err != nil {
			t.Fatalf("publish: %v: %s", err, out)
		}
		return harness.InOrder(shown(), " n /tasks/oom", "published")
	})
	for _, args := range [][]string{
		{"publish", "--topic", "/x"},
		{"publish", "--topic", "/x", "--namespace", "n", "more"},
		{"-a", "/nowhere.sock", "publish", "--topic", "/x", "--namespace", "n"},
		{"config"},
		{"config", "else"},
		{"nonsense"},
	} {
		if out, err := cleatd(data, args...); err == nil {
			t.Errorf("cleatd %q: %s", args, out)
		}
	}
	if out, err := cleatd([]byte("no Any"), "-a", d.Address, "publish", "--topic", "/x", "--namespace", "n"); err == nil {
		t.Errorf("publish of an invalid event: %s", out)
	}

	// config
	file := filepath.Join(t.TempDir(), "c.toml")
	harness.Must(t, os.WriteFile(file, []byte("version = 3\nroot = \"/srv/x\"\noom_score = 5\n"), 0o600))
	for command, want := range map[string][]string{
		"default": {"root = '/var/lib/cleat'"},
		"migrate": {"oom_score is ignored", "root = '/srv/x'"},
		"dump":    {"oom_score is ignored", "root = '/srv/x'", "log_level = 'debug'"},
	} {
		if out, err := cleatd(nil, "-c", file, "-l", "debug", "config", command); err != nil || harness.InOrder(out, want...) != nil {
			t.Errorf("config %s: %v: %s", command, err, out)
		}
	}

	d.Stop() // SIGTERM
	if !harness.Alive(pid) {
		t.Error("the container was stopped with the daemon")
	}
	d.Begin()
	d.Status("c", "running")
}

func TestUnservedMethod_ErrorNamesMethod(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	client, err := rpc.Dial(t.Context(), d.Address+".ttrpc")
	harness.Must(t, err)
	defer client.Close()
	const service, method = "containerd.services.fortunes.v1.Fortunes", "Predict"
	for transport, err := range map[string]error{
		"gRPC":  conn.Invoke(ctx, "/"+service+"/"+method, &emptypb.Empty{}, &emptypb.Empty{}),
		"ttrpc": client.Call(ctx, service, method, &emptypb.Empty{}, &emptypb.Empty{}),
	} {
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), service) {
			t.Errorf("%s over %s: %v", service, transport, err)
		}
	}
}
