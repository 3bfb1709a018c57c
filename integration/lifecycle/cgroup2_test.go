package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2/stats"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/internal/guest"
	apievents "github.com/cleatproject/cleat/proto/events"
)

// limited is a spec with a memory limit in MiB and a cgroup path of ctr's form.
func limited(t *testing.T, id string, mib int64, args ...string) *specs.Spec {
	t.Helper()
	s := fixture.BusyboxSpec(t, args...)
	s.Linux.CgroupsPath = "/default/" + id
	limit := mib << 20
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	return s
}

// TestCgroupV2 runs containers on a kernel with the unified hierarchy.
func TestCgroupV2(t *testing.T) {
	t.Parallel()
	if !guest.Inside(t, guest.Options{Env: []string{harness.BinariesEnv + "=" + harness.Binaries()}}) {
		return
	}
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil || !strings.Contains(string(controllers), "memory") || !strings.Contains(string(controllers), "pids") {
		t.Fatalf("the guest's controllers are %q, %v", controllers, err)
	}
	d := harness.Start(t)
	ctx, tasks := fixture.CreateTask(d, "c", limited(t, "c", 64, "sleep", "1000"), "")
	pid := fixture.StartTask(ctx, d, tasks, "c")
	group := unifiedGroup(t, pid)
	if group != "/default/c" { // as the spec says
		t.Errorf("the container is in %s", group)
	}
	file := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, name))
		harness.Must(t, err)
		return strings.TrimSpace(string(data))
	}

	// The init of the OCI runtime has threads until it executes the program.
	d.Eventually("the metrics are those of the program", func() error {
		m := metricsV2(ctx, t, tasks, "c")
		if m.Memory.GetUsageLimit() != 64<<20 || m.Memory.GetUsage() == 0 || m.Pids.GetCurrent() != 1 || m.CPU.GetUsageUsec() == 0 {
			return fmt.Errorf("metrics: %v", m)
		}
		return nil
	})
	_, err = tasks.Update(ctx, &tasksapi.UpdateTaskRequest{ContainerID: "c", Resources: &anypb.Any{
		TypeUrl: harness.ResourcesURL + "LinuxResources", Value: []byte(`{"memory":{"limit":100663296},"pids":{"limit":77},"cpu":{"quota":50000,"period":100000}}`),
	}})
	harness.Must(t, err)
	if m := metricsV2(ctx, t, tasks, "c"); m.Memory.GetUsageLimit() != 96<<20 || m.Pids.GetLimit() != 77 || file("cpu.max") != "50000 100000" {
		t.Errorf("metrics after an update: %v, cpu.max %s", m, file("cpu.max"))
	}

	_, err = tasks.Pause(ctx, &tasksapi.PauseTaskRequest{ContainerID: "c"})
	harness.Must(t, err)
	d.Status("c", "paused")
	if !strings.Contains(file("cgroup.events"), "frozen 1") {
		t.Errorf("paused, but cgroup.events has %q", file("cgroup.events"))
	}
	d.Restart() // the daemon finds the paused container
	ctx, conn := fixture.GRPC(d)
	tasks = tasksapi.NewTasksClient(conn)
	d.Status("c", "paused")
	_, err = tasks.Resume(ctx, &tasksapi.ResumeTaskRequest{ContainerID: "c"})
	harness.Must(t, err)
	d.Status("c", "running")
	if !strings.Contains(file("cgroup.events"), "frozen 0") {
		t.Errorf("resumed, but cgroup.events has %q", file("cgroup.events"))
	}

	// An exec'd process is in the same cgroup, and listed.
	_, err = tasks.Exec(ctx, &tasksapi.ExecProcessRequest{ContainerID: "c", ExecID: "x", Spec: &anypb.Any{
		TypeUrl: harness.ResourcesURL + "Process", Value: []byte(`{"args":["/bin/sleep","1000"],"cwd":"/"}`),
	}})
	harness.Must(t, err)
	started, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: "c", ExecID: "x"})
	harness.Must(t, err)
	if got := unifiedGroup(t, int(started.Pid)); got != group {
		t.Errorf("exec'd process in %s, container in %s", got, group)
	}
	d.Eventually("both programs are listed and counted", func() error { // see above: until the threads of runc have ended
		pids, err := tasks.ListPids(ctx, &tasksapi.ListPidsRequest{ContainerID: "c"})
		if err != nil || len(pids.Processes) != 2 {
			return errors.Join(err, fmt.Errorf("pids: %v", pids))
		}
		if m := metricsV2(ctx, t, tasks, "c"); m.Pids.GetCurrent() != 2 {
			return fmt.Errorf("metrics with an exec'd process: %v", m.Pids)
		}
		return nil
	})

	outOfMemoryV2(ctx, d, tasks)
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "c", Signal: uint32(unix.SIGKILL), All: true})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "c", 137)
	fixture.DeleteTask(ctx, d, tasks, "c")
	if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", group)); err == nil {
		t.Errorf("cgroup %s is left", group)
	}

	// Cgroups of a namespace that OCI runtimes leave are removed with the namespace.
	d.Cleat("namespace", "create", "extra")
	for _, parent := range []string{"", d.Cgroup()} {
		harness.Must(t, os.MkdirAll(filepath.Join("/sys/fs/cgroup", parent, "extra"), 0o755))
	}
	d.Cleat("namespace", "rm", "extra")
	if left := cgroupsNamed(d, "extra"); len(left) > 0 {
		t.Errorf("cgroups of the namespace are left: %q", left)
	}
}

// outOfMemoryV2 runs a container that exceeds its memory limit and one that does not.
func outOfMemoryV2(ctx context.Context, d *harness.Daemon, tasks tasksapi.TasksClient) {
	d.T.Helper()
	fixture.CreateTask(d, "greedy", limited(d.T, "greedy", 16, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"), "")
	fixture.StartTask(ctx, d, tasks, "greedy")
	fixture.WaitTask(ctx, d, tasks, "greedy", 137)
	fixture.DeleteTask(ctx, d, tasks, "greedy")
	var received []string
	fixture.EachEvent(d, fixture.Client(d), client.EventsRequest{FromStart: true}, func(e client.Event) bool {
		switch e.Topic {
		case "/tasks/oom":
			var ev apievents.TaskOOM
			harness.Must(d.T, ev.Unmarshal(e.Value))
			received = append(received, "oom "+ev.ContainerId)
		case client.TopicExit:
			var ev apievents.TaskExit
			harness.Must(d.T, ev.Unmarshal(e.Value))
			received = append(received, fmt.Sprintf("exit %s %d", ev.ContainerId, ev.ExitStatus))
		}
		return e.Topic != client.TopicDelete
	})
	if !slices.Equal(received, []string{"oom greedy", "exit greedy 137"}) {
		d.T.Errorf("OOM events of %q", received)
	}
}

// unifiedGroup returns the cgroup of a process.
func unifiedGroup(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	harness.Must(t, err)
	group, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "0::")
	if !ok || strings.Contains(group, "\n") {
		t.Fatalf("process %d is in %q, not in a unified hierarchy", pid, data)
	}
	return group
}

// metricsV2 requests the metrics of a task, which must be those of cgroup v2.
func metricsV2(ctx context.Context, t *testing.T, tasks tasksapi.TasksClient, id string) *stats.Metrics {
	t.Helper()
	data := fixture.MetricOf(ctx, t, tasks, id)
	if data.GetTypeUrl() != "io.containerd.cgroups.v2.Metrics" {
		t.Fatalf("metrics: %v", data)
	}
	m := &stats.Metrics{}
	harness.Must(t, proto.Unmarshal(data.Value, m))
	return m
}
