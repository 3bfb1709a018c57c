package goclient

import (
	"strings"
	"syscall"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"

	"github.com/cleatproject/cleat/integration/harness"
)

// TestTask_Details covers what clients of the task service depend on beyond the published comments.
func TestTask_Details(t *testing.T) {
	f := start(t)
	got, errs := f.subscribe(`topic=="/tasks/delete"`)
	c := f.container("details", "sleep", "1000")
	task, exit := f.begin(c, cio.NullIO)
	if status, err := task.Status(f.ctx); err != nil || !status.ExitTime.IsZero() {
		t.Errorf("a running task exited at %v, %v", status.ExitTime, err)
	}

	spec, err := c.Spec(f.ctx)
	f.must(err)
	p := *spec.Process
	p.Args, p.Terminal = []string{"stty", "size"}, true
	var s streams
	process, err := task.Exec(f.ctx, "sized", &p, s.creator(f, nil, cio.WithTerminal))
	f.must(err)
	f.must(process.Resize(f.ctx, 64, 48)) // before the start
	exited, err := process.Wait(f.ctx)
	f.must(err)
	f.must(process.Start(f.ctx))
	f.code(exited)
	process.IO().Wait()
	if out := s.out.String(); out != "48 64\r\n" {
		t.Errorf("the size at the start is %q", out)
	}
	_, err = process.Delete(f.ctx)
	f.must(err)

	f.must(task.Kill(f.ctx, syscall.SIGKILL))
	f.code(exit)
	_, err = task.Delete(f.ctx)
	f.must(err)
	select {
	case e := <-got:
		value, err := typeurl.UnmarshalAny(e.Event)
		f.must(err)
		if x, ok := value.(*eventsapi.TaskDelete); !ok || x.ID != "" || x.ContainerID != "details" || x.ExitStatus != 137 {
			t.Errorf("deletion %+v", value)
		}
	case err := <-errs:
		t.Fatal(err)
	case <-time.After(harness.Limit):
		t.Fatal("no deletion was published")
	}
	f.remove(c)
}

// TestErrors_Prefixes covers the texts by which clients distinguish failures.
func TestErrors_Prefixes(t *testing.T) {
	f := start(t)
	for name, c := range map[string]struct {
		opt   containerd.NewContainerOpts
		args  string
		begin string
	}{
		"no-program": {nil, "/bin/nothing", "failed to create shim task: OCI runtime create failed: "},
		"no-runtime": {containerd.WithRuntime("wrong", nil), "true", "invalid runtime name"},
	} {
		image, err := f.client.GetImage(f.ctx, f.image.Name())
		f.must(err)
		opts := []containerd.NewContainerOpts{
			containerd.WithNewSnapshot(name, image),
			containerd.WithNewSpec(oci.WithImageConfig(image), oci.WithProcessArgs(c.args)),
		}
		if c.opt != nil {
			opts = append(opts, c.opt)
		}
		container, err := f.client.NewContainer(f.ctx, name, opts...)
		f.must(err)
		_, err = container.NewTask(f.ctx, cio.NullIO)
		if err == nil || !strings.HasPrefix(err.Error(), c.begin) {
			t.Errorf("%s: %v", name, err)
		}
		f.must(container.Delete(f.ctx, containerd.WithSnapshotCleanup))
	}

	c := f.container("exec-error", "sleep", "1000")
	task, exit := f.begin(c, cio.NullIO)
	spec, err := c.Spec(f.ctx)
	f.must(err)
	p := *spec.Process
	p.Args = []string{"/bin/nothing"}
	process, err := task.Exec(f.ctx, "x", &p, cio.NullIO)
	f.must(err)
	if err := process.Start(f.ctx); err == nil || !strings.HasPrefix(err.Error(), "OCI runtime exec failed: ") {
		t.Errorf("exec without a process: %v", err)
	}
	_, err = process.Delete(f.ctx)
	f.must(err)
	f.must(task.Kill(f.ctx, syscall.SIGKILL))
	f.code(exit)
	_, err = task.Delete(f.ctx)
	f.must(err)
	f.remove(c)
}
