package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestOCIHook_RunsUnderOCIRuntime lets runc call `cleatd oci-hook`, as clients of containerd's oci-hook command
// configure it.
func TestOCIHook_RunsUnderOCIRuntime(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	out := filepath.Join(t.TempDir(), "out")
	spec := fixture.BusyboxSpec(t, "true")
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: harness.Binary("cleatd"),
		Args: []string{"cleatd", "oci-hook", "--", "/bin/sh", "-c", "echo $0 $1 >" + out, "{{id}}", "{{status}}"},
	}}}
	ctx, tasks := fixture.CreateTask(d, "hooked", spec, "")
	fixture.StartTask(ctx, d, tasks, "hooked")
	fixture.WaitTask(ctx, d, tasks, "hooked", 0)
	_, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "hooked"})
	harness.Must(t, err)
	data, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(data), "hooked creat") {
		t.Errorf("the hook wrote %q, %v", data, err)
	}
	d.Cleat("rm", "hooked")
}
