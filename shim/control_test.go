package shim_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	cgv1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgv2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

func (s *shimUnder) status() types.Status {
	s.t.Helper()
	return must[task.StateResponse](within(s.t), s, "State", &task.StateRequest{Id: s.id}).Status
}

func TestPauseAndResume(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "pause", args("sleep", "1000"))
	s.run(s.request())
	must[types.Empty](ctx, s, "Pause", &task.PauseRequest{Id: s.id})
	if st := s.status(); st != types.Status_PAUSED {
		t.Errorf("paused: %v", st)
	}
	if _, err := call[types.Empty](ctx, s, "Pause", &task.PauseRequest{Id: s.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pause again: %v", err)
	}
	if _, err := call[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete while paused: %v", err)
	}
	must[types.Empty](ctx, s, "Resume", &task.ResumeRequest{Id: s.id})
	if st := s.status(); st != types.Status_RUNNING {
		t.Errorf("resumed: %v", st)
	}
	must[types.Empty](ctx, s, "Pause", &task.PauseRequest{Id: s.id})
	must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9})
	if code := s.wait(); code != 137 {
		t.Errorf("exit %d", code)
	}
	s.remove()
	d.await(ctx, t, "delete")
	want := []string{"create", "start", "paused", "resumed", "paused", "exit pause 137", "delete"}
	if got := d.topics(t); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestPidsKillAndExecExit(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "pids", args("sh", "-c", "sleep 1000 & sleep 1000; true"))
	s.run(s.request())
	for _, id := range []string{"one", "two"} {
		must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{Id: s.id, ExecId: id, Spec: processAny(t, false, "sleep", "1000")})
		must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: id})
	}
	eventually(t, func() bool {
		return len(must[task.PidsResponse](ctx, s, "Pids", &task.PidsRequest{Id: s.id}).Processes) == 5
	})
	var named []string
	for _, p := range must[task.PidsResponse](ctx, s, "Pids", &task.PidsRequest{Id: s.id}).Processes {
		if p.Info != nil {
			var details runcopts.ProcessDetails
			if err := details.Unmarshal(p.Info.Value); err != nil {
				t.Fatal(err)
			}
			named = append(named, details.ExecId)
		}
	}
	if slices.Sort(named); !slices.Equal(named, []string{"one", "two"}) {
		t.Errorf("exec'd processes %q", named)
	}
	must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, ExecId: "one", Signal: 15})
	if e := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id, ExecId: "one"}); e.ExitStatus != 143 {
		t.Errorf("exit of one: %d", e.ExitStatus)
	}
	if _, err := call[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, ExecId: "one", Signal: 15}); !errdefs.IsNotFound(err) {
		t.Errorf("kill of the dead: %v", err)
	}
	if st := s.status(); st != types.Status_RUNNING {
		t.Errorf("container is %v", st)
	}
	must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9, All: true})
	s.wait()
	d.await(ctx, t, "exit pids 137")
	got := d.topics(t)
	if i, j := slices.Index(got, "exit two 137"), slices.Index(got, "exit pids 137"); i < 0 || i > j {
		t.Errorf("the exec's exit does not come before the init's: %q", got)
	}
	if e := must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id, ExecId: "one"}); e.ExitStatus != 143 {
		t.Errorf("delete of one: %d", e.ExitStatus)
	}
}

// usage holds what both kinds of metrics report: processes, bytes, and CPU time.
type usage struct{ pids, pidsLimit, memory, memoryLimit, cpu uint64 }

func (s *shimUnder) stats() usage {
	s.t.Helper()
	stats := must[task.StatsResponse](within(s.t), s, "Stats", &task.StatsRequest{Id: s.id}).Stats
	switch stats.TypeUrl {
	case "io.containerd.cgroups.v1.Metrics":
		var m cgv1.Metrics
		if err := proto.Unmarshal(stats.Value, &m); err != nil {
			s.t.Fatal(err)
		}
		return usage{m.Pids.Current, m.Pids.Limit, m.Memory.Usage.Usage, m.Memory.Usage.Limit, m.CPU.Usage.Total}
	case "io.containerd.cgroups.v2.Metrics":
		var m cgv2.Metrics
		if err := proto.Unmarshal(stats.Value, &m); err != nil {
			s.t.Fatal(err)
		}
		return usage{m.Pids.Current, m.Pids.Limit, m.Memory.Usage, m.Memory.UsageLimit, m.CPU.UsageUsec}
	}
	s.t.Fatalf("type %q", stats.TypeUrl)
	return usage{}
}

func TestStatsAndUpdate(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "stats", args("sleep", "1000"))
	s.run(s.request())
	must[types.Empty](ctx, s, "Update", &task.UpdateTaskRequest{
		Id: s.id, Resources: &types.Any{Value: []byte(`{"pids":{"limit":77},"memory":{"limit":67108864}}`)},
	})
	var m usage
	eventually(t, func() bool { // Until the OCI runtime's init has become the program it has threads.
		m = s.stats()
		return m.pids == 1
	})
	if m.pidsLimit != 77 || m.memoryLimit != 64<<20 || m.memory == 0 || m.cpu == 0 {
		t.Errorf("metrics %+v", m)
	}
	if _, err := call[types.Empty](ctx, s, "Update", &task.UpdateTaskRequest{Id: s.id, Resources: &types.Any{Value: []byte("{")}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("update by rubbish: %v", err)
	}
	if _, err := call[types.Empty](ctx, s, "Checkpoint", &task.CheckpointTaskRequest{Id: s.id, Path: d.state}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("checkpoint without criu: %v", err)
	}
}

func TestErrors_NameTheCause(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "errors", args("nope"))
	for _, verb := range []string{"Create", "Run"} {
		var err error
		if verb == "Create" {
			_, err = call[task.CreateTaskResponse](ctx, s, "Create", s.request())
		} else {
			_, err = rpc.Call[shimapi.RunResponse](ctx, s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: s.request()})
		}
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "executable file not found") {
			t.Errorf("%s of a missing executable: %v", verb, err)
		}
		if _, err := call[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); !errdefs.IsNotFound(err) {
			t.Errorf("state after it: %v", err)
		}
	}
	bad := s.request()
	bad.Id = "../escape"
	if _, err := call[task.CreateTaskResponse](ctx, s, "Create", bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad id: %v", err)
	}
	bad = s.request()
	bad.Options = optionsAny(t, &runcopts.Options{BinaryName: "/nonexistent/runtime"})
	if _, err := call[task.CreateTaskResponse](ctx, s, "Create", bad); !errdefs.IsNotFound(err) {
		t.Errorf("missing runtime: %v", err)
	}
	bad = s.request()
	bad.Stdout = d.state + "/no-such-fifo"
	if _, err := call[task.CreateTaskResponse](ctx, s, "Create", bad); !errdefs.IsNotFound(err) {
		t.Errorf("missing FIFO: %v", err)
	}
	bad = s.request()
	bad.Rootfs = []*types.Mount{{Type: "tmpfs", Source: "tmpfs"}, {Type: "bind", Source: "/nonexistent", Options: []string{"rbind"}}}
	if _, err := call[task.CreateTaskResponse](ctx, s, "Create", bad); err == nil {
		t.Error("bad mounts: no error")
	}
	if len(d.topics(t)) != 0 {
		t.Errorf("events of what never was: %q", d.topics(t))
	}

	ok := launch(t, d, "fine", args("sleep", "1000"))
	ok.run(ok.request())
	if _, err := call[task.CreateTaskResponse](ctx, ok, "Create", ok.request()); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	if _, err := call[task.StartResponse](ctx, ok, "Start", &task.StartRequest{Id: ok.id}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v", err)
	}
	exec := &task.ExecProcessRequest{Id: ok.id, ExecId: "x", Spec: processAny(t, false, "nope")}
	must[types.Empty](ctx, ok, "Exec", exec)
	if _, err := call[types.Empty](ctx, ok, "Exec", exec); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second exec: %v", err)
	}
	if _, err := call[task.StartResponse](ctx, ok, "Start", &task.StartRequest{Id: ok.id, ExecId: "x"}); !errdefs.IsNotFound(err) {
		t.Errorf("exec of a missing executable: %v", err)
	}
	must[task.DeleteResponse](ctx, ok, "Delete", &task.DeleteRequest{Id: ok.id, ExecId: "x"})
	if ok.status() != types.Status_RUNNING {
		t.Error("the container did not survive")
	}
}

// slowRuntime is runc that blocks in one of its verbs, once it has created the file slow, until it is released.
func slowRuntime(t *testing.T, d *daemon, verb string) (options *types.Any, goOn func()) {
	t.Helper()
	script, free := filepath.Join(d.state, "slow-"+verb), filepath.Join(d.state, "free")
	text := "#!/bin/busybox sh\ncase \" $* \" in *\" " + verb + " \"*) echo x >> " + d.state + "/slow; until [ -e " + free + " ]; do sleep 0.02; done;; esac\nexec runc \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return optionsAny(t, &runcopts.Options{BinaryName: script}), func() {
		if err := os.WriteFile(free, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// State and Wait do not wait for a runtime that is slow in exec, nor do other processes.
func TestSlowRuntime_OtherCallsProceed(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "slow", args("sleep", "1000"))
	req := s.request()
	options, goOn := slowRuntime(t, d, "exec")
	req.Options = options
	s.run(req)
	must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{Id: s.id, ExecId: "x", Spec: processAny(t, false, "true")})
	started := make(chan error, 1)
	go func() {
		_, err := call[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: "x"})
		started <- err
	}()
	eventually(t, func() bool { _, err := os.Stat(d.state + "/slow"); return err == nil })
	s.status()
	must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id, ExecId: "x"})
	must[task.PidsResponse](ctx, s, "Pids", &task.PidsRequest{Id: s.id})
	select {
	case err := <-started:
		t.Errorf("the slow exec was over: %v", err)
	default:
	}
	goOn()
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// The client that requested a create disconnects: nothing is left.
func TestCreate_CallerDisconnects(t *testing.T) {
	for _, verb := range []string{"create", "run"} {
		t.Run(verb, func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "away", args("sleep", "1000"))
			req := s.request()
			options, goOn := slowRuntime(t, d, verb)
			req.Options = options
			gone := s.client
			done := make(chan error, 1)
			go func() {
				if verb == "create" {
					_, err := rpc.Call[task.CreateTaskResponse](ctx, gone, s.service, "Create", req)
					done <- err
				} else {
					_, err := rpc.Call[shimapi.RunResponse](ctx, gone, shimapi.Service, "Run", &shimapi.RunRequest{Create: req})
					done <- err
				}
			}()
			eventually(t, func() bool { _, err := os.Stat(d.state + "/slow"); return err == nil })
			_ = gone.Close()
			if err := <-done; err == nil {
				t.Error("the call succeeded")
			}
			goOn()
			s.connect()
			eventually(t, func() bool {
				_, err := call[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id})
				return errdefs.IsNotFound(err)
			})
			if left, err := os.ReadDir(filepath.Join(d.state, "runc", namespace)); err != nil && !os.IsNotExist(err) || len(left) != 0 {
				t.Errorf("the runtime still knows %v, %v", left, err)
			}
		})
	}
}

// Exits while the daemon is away are published when it is back, at its new address.
func TestPublish_DaemonAway(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "lonely", args("sh", "-c", "read line < /tmp/go; exit 9"))
	if err := syscall.Mkfifo(filepath.Join(s.bundle, "rootfs", "tmp", "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(s.request())
	d.await(ctx, t, "start")
	eventually(t, func() bool { return s.native().PendingEvents == 0 }) // the daemon's acknowledgement has arrived
	d.stop()
	if err := os.WriteFile(filepath.Join(s.bundle, "rootfs", "tmp", "go"), []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != 9 {
		t.Errorf("exit %d", code)
	}
	status, err := rpc.Call[shimapi.StatusResponse](ctx, s.client, shimapi.Service, "Status", &shimapi.StatusRequest{})
	if err != nil || status.PendingEvents != 1 || status.Processes[0].ExitStatus != 9 {
		t.Errorf("status %+v, %v", status, err)
	}
	d.socket += "2"
	d.serve(t)
	if _, err := rpc.Call[shimapi.StatusResponse](ctx, s.client, shimapi.Service, "Status", &shimapi.StatusRequest{TtrpcAddress: d.socket}); err != nil {
		t.Fatal(err)
	}
	d.await(ctx, t, "exit lonely 9")
}

func TestSignals_DoNotEndShim(t *testing.T) {
	d := newDaemon(t)
	s := launch(t, d, "signals", args("sleep", "1000"))
	s.run(s.request())
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE} {
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if s.status() != types.Status_RUNNING {
			t.Errorf("not running after %v", sig)
		}
	}
}
