package goclient

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestSandboxLife(t *testing.T) {
	f := start(t)
	envelopes, _ := f.subscribe(`topic~=^/sandboxes/`)
	sb, err := f.client.NewSandbox(f.ctx, "pod", containerd.WithSandboxRuntime("io.containerd.runc.v2", nil),
		containerd.WithSandboxSpec(&oci.Spec{}), containerd.WithSandboxLabels(map[string]string{"of": "test"}))
	f.must(err)
	if labels, err := sb.Labels(f.ctx); err != nil || labels["of"] != "test" {
		t.Errorf("labels %v, %v", labels, err)
	}
	f.must(sb.Start(f.ctx))
	controller := f.client.SandboxController("")
	platform, err := controller.Platform(f.ctx, "pod")
	f.must(err)
	if platform.OS != "linux" {
		t.Errorf("platform %+v", platform)
	}
	t.Cleanup(func() { _ = controller.Shutdown(f.ctx, "pod") }) // in case the test fails earlier
	exit, err := sb.Wait(f.ctx)
	f.must(err)

	var topics []string // from before the restart; the daemon need not send them after it
	for len(topics) < 2 {
		select {
		case e := <-envelopes:
			topics = append(topics, e.Topic)
			value, err := typeurl.UnmarshalAny(e.Event)
			f.must(err)
			if x, ok := value.(*events.SandboxStart); ok && x.SandboxID != "pod" {
				t.Errorf("start %+v", x)
			}
		case <-time.After(harness.Limit):
			t.Fatalf("only %q", topics)
		}
	}
	if !slices.Equal(topics, []string{"/sandboxes/create", "/sandboxes/start"}) {
		t.Errorf("topics %q", topics)
	}

	f.daemon.Restart()
	f.connected()
	status, err := controller.Status(f.ctx, "pod", true)
	f.must(err)
	if status.State != "SANDBOX_READY" || status.Pid == 0 || time.Since(status.CreatedAt) > time.Hour {
		t.Errorf("status after a restart %+v", status)
	}
	again, err := f.client.LoadSandbox(f.ctx, "pod")
	f.must(err)

	inside, err := again.NewContainer(f.ctx, "inside", containerd.WithSnapshotter("overlayfs"), containerd.WithRuntime("io.containerd.runc.v2", nil),
		containerd.WithNewSnapshot("inside-snapshot", f.image), containerd.WithNewSpec(oci.WithImageConfig(f.image), oci.WithProcessArgs("sh", "-c", "exit 3")))
	f.must(err)
	task, ended := f.begin(inside, cio.NullIO)
	if err := again.Shutdown(f.ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("shutdown with a task inside: %v", err)
	}
	if code := f.code(ended); code != 3 {
		t.Errorf("code %d", code)
	}
	_, err = task.Delete(f.ctx)
	f.must(err)
	f.remove(inside)

	f.must(again.Stop(f.ctx))
	f.must(again.Stop(f.ctx))
	if code := f.code(exit); code != 0 {
		t.Errorf("the wait from before the restart returns code %d", code)
	}
	f.must(again.Shutdown(f.ctx))
	if _, err := controller.Status(f.ctx, "pod", false); !errdefs.IsNotFound(err) {
		t.Errorf("status after shutdown: %v", err)
	}
	if _, err := f.client.LoadSandbox(f.ctx, "pod"); !errdefs.IsNotFound(err) {
		t.Errorf("load after shutdown: %v", err)
	}
}

func TestSandboxErrors(t *testing.T) {
	f := start(t)
	controller := f.client.SandboxController("")
	if _, err := controller.Start(f.ctx, "absent"); !errdefs.IsNotFound(err) {
		t.Errorf("start of a missing sandbox: %v", err)
	}
	if err := controller.Shutdown(f.ctx, "absent"); err != nil {
		t.Errorf("shutdown of a missing sandbox: %v", err)
	}
	if err := controller.Create(f.ctx, sandbox.Sandbox{ID: "bad", Runtime: sandbox.RuntimeOpts{Name: "io.containerd.nonesuch.v2"}}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("a missing runtime: %v", err)
	}
	if _, err := controller.Status(f.ctx, "bad", false); !errdefs.IsNotFound(err) {
		t.Errorf("a failed sandbox exists: %v", err)
	}
	c, err := f.client.NewContainer(f.ctx, "lonely", containerd.WithSandbox("absent"), containerd.WithSnapshotter("overlayfs"),
		containerd.WithNewSnapshot("lonely-snapshot", f.image), containerd.WithNewSpec(oci.WithImageConfig(f.image), oci.WithProcessArgs("true")))
	f.must(err)
	if _, err := c.NewTask(f.ctx, cio.NullIO); !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
		t.Errorf("a task in a missing sandbox: %v", err)
	}
	f.remove(c)
}
