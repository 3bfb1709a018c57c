package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestOCIHook_RunsUnderOCIRuntime lets runc call `cleatd oci-hook`, as clients of containerd's oci-hook command
// configure it.
func TestOCIHook_RunsUnderOCIRuntime(t *testing.T) {
	d := Start(t)
	out := filepath.Join(t.TempDir(), "out")
	spec := busyboxSpec(t, "true")
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: filepath.Join(binaries, "cleatd"),
		Args: []string{"cleatd", "oci-hook", "--", "/bin/sh", "-c", "echo $0 $1 >" + out, "{{id}}", "{{status}}"},
	}}}
	ctx, tasks := d.createTask("hooked", spec, "")
	d.startTask(ctx, tasks, "hooked")
	d.waitTask(ctx, tasks, "hooked", 0)
	_, err := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "hooked"})
	must(t, err)
	data, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(data), "hooked creat") {
		t.Errorf("the hook wrote %q, %v", data, err)
	}
	d.Cleat("rm", "hooked")
}
