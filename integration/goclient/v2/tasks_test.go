package goclient

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestTask_RunsToEnd(t *testing.T) {
	f := start(t)
	for _, tt := range []struct {
		name, stdin, stdout, stderr string
		args                        []string
		code                        uint32
	}{
		{"output", "", "to stdout\n", "to stderr\n", []string{"sh", "-c", "echo to stdout; echo to stderr >&2"}, 0},
		{"code", "", "", "", []string{"sh", "-c", "exit 42"}, 42},
		{"signal", "", "", "", []string{"sh", "-c", "kill -9 $$"}, 137},
		{"stdin", "from the client\n", "from the client\n", "", []string{"cat"}, 0},
		{"layers", "", "two\n", "", []string{"cat", "/etc/layer"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := f.run("run-"+tt.name, tt.stdin, tt.args...)
			if tt.name == "signal" { // init cannot kill itself by a signal without a handler
				if code == 42 {
					t.Errorf("code %d", code)
				}
				return
			}
			if stdout != tt.stdout || stderr != tt.stderr || code != tt.code {
				t.Errorf("stdout %q, stderr %q, code %d", stdout, stderr, code)
			}
		})
	}
}

func TestTask_MissingProgram_Fails(t *testing.T) {
	f := start(t)
	c := f.container("missing", "/bin/nothing")
	defer f.remove(c)
	task, err := c.NewTask(f.ctx, cio.NullIO)
	if err == nil {
		err = task.Start(f.ctx)
		if _, e := task.Delete(f.ctx, containerd.WithProcessKill); e != nil {
			t.Error(e)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "/bin/nothing") {
		t.Errorf("%v, want an error that names the program", err)
	}
}

func TestTask_RunningContainer(t *testing.T) {
	f := start(t)
	c := f.container("running", "sleep", "1000")
	task, exit := f.begin(c, cio.NullIO)

	status, err := task.Status(f.ctx)
	f.must(err)
	if status.Status != containerd.Running || task.Pid() == 0 {
		t.Errorf("status %+v, pid %d", status, task.Pid())
	}
	pids, err := task.Pids(f.ctx)
	f.must(err)
	if len(pids) != 1 || pids[0].Pid != task.Pid() {
		t.Errorf("pids %+v, want only %d", pids, task.Pid())
	}
	if _, err := c.NewTask(f.ctx, cio.NullIO); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second task: %v", err)
	}
	if err := c.Delete(f.ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete while it runs: %v", err)
	}
	if _, err := task.Delete(f.ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running task: %v", err)
	}

	f.must(task.Pause(f.ctx))
	if status, err = task.Status(f.ctx); err != nil || status.Status != containerd.Paused {
		t.Errorf("after pause: %+v, %v", status, err)
	}
	f.must(task.Resume(f.ctx))
	if status, err = task.Status(f.ctx); err != nil || status.Status != containerd.Running {
		t.Errorf("after resume: %+v, %v", status, err)
	}
	memory := int64(64 << 20)
	f.must(task.Update(f.ctx, containerd.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})))
	var metric *types.Metric
	harness.Eventually(t, "metrics are present", func() (err error) { // a slow shim is left out
		metric, err = task.Metrics(f.ctx)
		return err
	})
	if metric.ID != "running" || !strings.HasPrefix(metric.Data.GetTypeUrl(), "io.containerd.cgroups.v") {
		t.Errorf("metrics %v", metric)
	}
	spec, err := task.Spec(f.ctx)
	f.must(err)
	if !slices.Equal(spec.Process.Args, []string{"sleep", "1000"}) {
		t.Errorf("spec %q", spec.Process.Args)
	}
	loaded, err := f.dial().LoadContainer(f.ctx, "running")
	f.must(err)
	again, err := loaded.Task(f.ctx, nil)
	f.must(err)
	if again.Pid() != task.Pid() {
		t.Errorf("another client sees pid %d, not %d", again.Pid(), task.Pid())
	}

	f.must(task.Kill(f.ctx, syscall.SIGKILL))
	if code := f.code(exit); code != 137 {
		t.Errorf("code %d after SIGKILL", code)
	}
	if err := task.Kill(f.ctx, syscall.SIGKILL); !errdefs.IsNotFound(err) {
		t.Errorf("kill after the exit: %v", err)
	}
	late, err := again.Wait(f.ctx)
	f.must(err)
	if code := f.code(late); code != 137 {
		t.Errorf("a late wait returns code %d", code)
	}
	_, err = task.Delete(f.ctx)
	f.must(err)
	if _, err := c.Task(f.ctx, nil); !errdefs.IsNotFound(err) {
		t.Errorf("task after delete: %v", err)
	}
	f.remove(c)
	if _, err := f.client.LoadContainer(f.ctx, "running"); !errdefs.IsNotFound(err) {
		t.Errorf("container after delete: %v", err)
	}
}

func TestExec(t *testing.T) {
	f := start(t)
	c := f.container("execs", "sleep", "1000")
	task, exit := f.begin(c, cio.NullIO)
	spec, err := c.Spec(f.ctx)
	f.must(err)

	exec := func(id string, s *streams, stdin *input, args ...string) (containerd.Process, <-chan containerd.ExitStatus) {
		t.Helper()
		p := *spec.Process
		p.Args = args
		process, err := task.Exec(f.ctx, id, &p, s.creator(f, stdin))
		f.must(err)
		exited, err := process.Wait(f.ctx)
		f.must(err)
		f.must(process.Start(f.ctx))
		return process, exited
	}
	var s streams
	in := newInput("given")
	process, exited := exec("one", &s, in, "sh", "-c", "cat; echo problem >&2; exit 7")
	<-in.ended
	f.must(process.CloseIO(f.ctx, containerd.WithStdinCloser))
	if code := f.code(exited); code != 7 {
		t.Errorf("code %d", code)
	}
	process.IO().Wait()
	if s.out.String() != "given" || s.err.String() != "problem\n" {
		t.Errorf("stdout %q, stderr %q", s.out.String(), s.err.String())
	}
	_, err = process.Delete(f.ctx)
	f.must(err)

	long, longExit := exec("two", &streams{}, nil, "sleep", "1000")
	loaded, err := task.LoadProcess(f.ctx, "two", nil)
	f.must(err)
	if status, err := loaded.Status(f.ctx); err != nil || status.Status != containerd.Running {
		t.Errorf("loaded: %+v, %v", status, err)
	}
	got, err := f.client.TaskService().Get(f.ctx, &tasks.GetRequest{ContainerID: "execs", ExecID: "two"})
	f.must(err)
	if got.Process.Pid != long.Pid() {
		t.Errorf("pid %d of the exec, not %d", got.Process.Pid, long.Pid())
	}
	p := *spec.Process
	if _, err := task.Exec(f.ctx, "two", &p, cio.NullIO); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second exec of that id: %v", err)
	}
	f.must(long.Kill(f.ctx, syscall.SIGTERM))
	if code := f.code(longExit); code != 143 {
		t.Errorf("code %d after SIGTERM", code)
	}
	_, err = long.Delete(f.ctx)
	f.must(err)
	if _, err := task.LoadProcess(f.ctx, "two", nil); !errdefs.IsNotFound(err) {
		t.Errorf("load of a deleted exec: %v", err)
	}

	f.must(task.Kill(f.ctx, syscall.SIGKILL, containerd.WithKillAll))
	f.code(exit)
	_, err = task.Delete(f.ctx)
	f.must(err)
	f.remove(c)
}

func TestTerminal(t *testing.T) {
	f := start(t)
	c := f.containerWith("terminal", oci.WithTTY, oci.WithProcessArgs("sh", "-c", "read go; stty size; tty"))
	var s streams
	in, typed := io.Pipe()
	task, exit := f.begin(c, s.creator(f, &input{in, make(chan struct{})}, cio.WithTerminal))
	f.must(task.Resize(f.ctx, 101, 37))
	_, err := io.WriteString(typed, "\n")
	f.must(err)
	if code := f.code(exit); code != 0 {
		t.Errorf("code %d", code)
	}
	f.must(typed.Close())
	task.IO().Wait()
	if out := s.out.String(); !strings.Contains(out, "37 101\r\n") || !strings.Contains(out, "/dev/") {
		t.Errorf("output %q", out)
	}
	_, err = task.Delete(f.ctx)
	f.must(err)
	f.remove(c)
}

// TestCheckpoint checks the class of the error if CRIU does not work, and a checkpoint if it does.
func TestCheckpoint(t *testing.T) {
	f := start(t)
	c := f.container("checkpoint", "sleep", "1000")
	task, exit := f.begin(c, cio.NullIO)
	image, err := task.Checkpoint(f.ctx)
	switch {
	case err == nil:
		if image.Target().Digest == "" {
			t.Error("the checkpoint has no digest")
		}
	case !errdefs.IsFailedPrecondition(err):
		t.Errorf("checkpoint: %v", err)
	}
	if status, err := task.Status(f.ctx); err != nil || status.Status != containerd.Running {
		t.Errorf("after the checkpoint: %+v, %v", status, err)
	}
	f.must(task.Kill(f.ctx, syscall.SIGKILL))
	f.code(exit)
	_, err = task.Delete(f.ctx)
	f.must(err)
	f.remove(c)
}

// TestDaemonRestart_ClientReconnects has one client that is connected all the time.
func TestDaemonRestart_ClientReconnects(t *testing.T) {
	f := start(t)
	lives := f.container("lives", "sleep", "1000")
	task, _ := f.begin(lives, cio.NullIO)
	ends := f.containerWith("ends", oci.WithProcessArgs("sh", "-c", "trap 'exit 33' TERM; echo up; while true; do sleep 1; done"))
	out, written := io.Pipe()
	ending, _ := f.begin(ends, cio.NewCreator(cio.WithStreams(nil, written, nil), cio.WithFIFODir(f.TempDir())))
	_, err := io.ReadFull(out, make([]byte, len("up\n"))) // from here on the program handles the signal
	f.must(err)
	pid := task.Pid()

	f.daemon.Restart()
	f.connected()
	harness.Eventually(t, "both run", func() error { // their shims must report to the daemon first
		for _, task := range []containerd.Task{task, ending} {
			if status, err := task.Status(f.ctx); err != nil || status.Status != containerd.Running {
				return fmt.Errorf("status %+v after a restart, %w", status, err)
			}
		}
		return nil
	})
	loaded, err := lives.Task(f.ctx, nil)
	f.must(err)
	if loaded.Pid() != pid {
		t.Errorf("pid %d after a restart, %d before", loaded.Pid(), pid)
	}
	exit, err := ending.Wait(f.ctx)
	f.must(err)
	f.must(ending.Kill(f.ctx, syscall.SIGTERM))
	if code := f.code(exit); code != 33 {
		t.Errorf("code %d", code)
	}
	_, err = ending.Delete(f.ctx)
	f.must(err)
	f.remove(ends)
	_, err = task.Delete(f.ctx, containerd.WithProcessKill)
	f.must(err)
	f.remove(lives)
}

// TestCalls_EndWithContext cancels calls that would wait forever.
func TestCalls_EndWithContext(t *testing.T) {
	f := start(t)
	c := f.container("waited", "sleep", "1000")
	task, _ := f.begin(c, cio.NullIO)
	ctx, cancel := context.WithCancel(f.ctx)
	exit, err := task.Wait(ctx)
	f.must(err)
	cancel()
	if _, _, err := (<-exit).Result(); !errdefs.IsCanceled(err) && !strings.Contains(err.Error(), "cancel") {
		t.Errorf("a cancelled wait: %v", err)
	}
	_, err = task.Delete(f.ctx, containerd.WithProcessKill)
	f.must(err)
	f.remove(c)
}
