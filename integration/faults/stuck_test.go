package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
)

// shim connects to a container's shim as another daemon would.
func shim(d *harness.Daemon, id string) taskapi.TTRPCTaskService {
	d.T.Helper()
	path, err := rpc.SocketPath(d.Shims()[id].Socket)
	harness.Must(d.T, err)
	conn, err := rpc.DialSocket(d.T.Context(), path)
	harness.Must(d.T, err)
	c := ttrpc.NewClient(conn)
	d.T.Cleanup(func() { harness.Must(d.T, c.Close()) })
	return taskapi.NewTTRPCTaskClient(c)
}

func TestStateAndWait_OCIRuntimeStuck_Return(t *testing.T) {
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "go")
	harness.OCIWrapper(t, fmt.Sprintf(`if [ "$verb" = exec ]; then : > %s; while ! [ -e %s ]; do sleep 0.05; done; fi`, started, release))
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	quickRun(d, c, "c", "sleep", "1000")
	slow := d.Command("exec", "c", "true")
	harness.Must(t, slow.Start())
	d.Eventually("the OCI runtime is busy", harness.Exists(started))

	shim := shim(d, "c")
	ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
	defer cancel()
	harness.Within(t, "State, Get and List during the call", func() {
		st, err := shim.State(ctx, &taskapi.StateRequest{ID: "c"})
		harness.Must(t, err)
		if st.Status != task.Status_RUNNING {
			t.Errorf("status %s in the shim", st.Status)
		}
		p, err := c.State(ctx, "c", "")
		harness.Must(t, err)
		if p.Status != "running" || d.Ps("c").Status != "running" {
			t.Errorf("status %s in the daemon", p.Status)
		}
	})
	harness.Within(t, "Kill and Wait during the call", func() {
		waits := make(chan error, 2)
		go func() {
			e, err := shim.Wait(ctx, &taskapi.WaitRequest{ID: "c"})
			if err == nil && e.ExitStatus != 137 {
				err = fmt.Errorf("code %d in the shim", e.ExitStatus)
			}
			waits <- err
		}()
		go func() {
			e, err := c.Wait(ctx, "c", 0)
			if err == nil && e.Status != 137 {
				err = fmt.Errorf("code %d in the daemon", e.Status)
			}
			waits <- err
		}()
		harness.Must(t, c.Kill(ctx, "c", client.KillRequest{Signal: unix.SIGKILL}))
		for range 2 {
			harness.Must(t, <-waits)
		}
	})
	harness.Must(t, os.WriteFile(release, nil, 0o600))
	if err := slow.Wait(); err == nil {
		t.Error("exec in a killed container succeeded")
	}
}

func TestExit_ChildHoldsOutput_IsPublished(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	const script = "sleep 1000 & echo ok"
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	logger := filepath.Join(t.TempDir(), "logger")
	harness.Must(t, os.WriteFile(logger, []byte("#!/bin/sh\nexec 5>&-\ncat <&3 >> \"$0.out\" &\ncat <&4 >/dev/null\nwait\n"), 0o755))
	for name, args := range map[string][]string{
		"run":               {"run", "--rm", "busybox"},
		"run with input":    {"run", "--rm", "-i", "busybox"},
		"run with a file":   {"run", "--rm", "--log", "file://" + filepath.Join(t.TempDir(), "log"), "busybox"},
		"run with a logger": {"run", "--rm", "--log", "binary://" + logger, "busybox"},
		"exec":              {"exec", "c"},
	} {
		harness.Within(t, name, func() {
			out, stderr, code := d.Try(append(args, "sh", "-c", script)...)
			if code != 0 || out != "ok\n" && name != "run with a logger" {
				t.Errorf("%s: %q, %q, code %d", name, out, stderr, code)
			}
		})
	}
	harness.Eventually(t, "the logger has the output", func() error {
		if data, err := os.ReadFile(logger + ".out"); string(data) != "ok\n" {
			return fmt.Errorf("%q, %w", data, err)
		}
		return nil
	}, d.Log)

	// In the host's pid namespace the child outlives the init, which is impossible in a pid namespace of its own.
	c := fixture.Client(d)
	s := fixture.BusyboxSpec(t, "sh", "-c", script)
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	dir := t.TempDir()
	harness.Must(t, unix.Mkfifo(filepath.Join(dir, "out"), 0o600))
	for name, req := range map[string]client.RunRequest{
		"fifo":   {Stdio: client.Stdio{Stdout: filepath.Join(dir, "out")}},
		"log":    {Log: true},
		"logger": {Stdio: client.Stdio{Stdout: "binary://" + logger, Stderr: "binary://" + logger}},
	} {
		req.ID, req.Image, req.Spec = "host-"+name, "busybox", s
		harness.Within(t, "exit and delete with the host's pids, "+name, func() {
			started, err := c.Run(t.Context(), req)
			harness.Must(t, err)
			exit, err := c.Wait(t.Context(), req.ID, started.Cursor)
			if err != nil || exit.Status != 0 {
				t.Errorf("%s: %v, %v", name, exit, err)
			}
			harness.Must(t, c.Remove(t.Context(), req.ID, true))
		})
	}
}

// holdings counts the threads and descriptors of a process.
func holdings(t *testing.T, pid int) (threads, descriptors int) {
	t.Helper()
	for what, n := range map[string]*int{"task": &threads, "fd": &descriptors} {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, what))
		harness.Must(t, err)
		*n = len(list)
	}
	return threads, descriptors
}

func TestClientKilled_AtFIFO_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	quickRun(d, c, "c", "sleep", "1000")
	pid := d.Shims()["c"].Pid
	threads, descriptors := holdings(t, pid)

	// No process opens the other ends of these.
	const clients = 20
	process := fixture.BusyboxSpec(t, "true").Process
	for i := range clients {
		dead, err := client.Dial(t.Context(), d.Address, client.Options{})
		harness.Must(t, err)
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		harness.Must(t, os.Mkdir(dir, 0o700))
		io := client.Stdio{Stdin: filepath.Join(dir, "in"), Stdout: filepath.Join(dir, "out"), Stderr: filepath.Join(dir, "err")}
		for _, path := range []string{io.Stdin, io.Stdout, io.Stderr} {
			harness.Must(t, unix.Mkfifo(path, 0o600))
		}
		exec := fmt.Sprintf("x%d", i)
		harness.Must(t, dead.Exec(t.Context(), "c", exec, process, io))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Millisecond)
		_, _ = dead.Start(ctx, "c", exec) // interrupted, or complete
		cancel()
		harness.Must(t, dead.Close())
		harness.Must(t, os.RemoveAll(dir))
		d.Eventually("the exec can be deleted", func() error {
			_, err := c.Delete(t.Context(), "c", exec)
			return err
		})
	}
	d.Eventually("the shim has no more threads and descriptors than before", func() error {
		nt, nd := holdings(t, pid)
		// Go keeps threads: as many as were blocked at the same time.
		if nt > threads+clients/2 || nd > descriptors {
			return fmt.Errorf("threads %d, were %d; descriptors %d, were %d", nt, threads, nd, descriptors)
		}
		return nil
	})

	// The same for clients that are killed at many steps of a run.
	for i := range 10 {
		cmd := d.Command("run", "-i", "--rm", "busybox", "cat")
		_, err := cmd.StdinPipe() // open until Wait
		harness.Must(t, err)
		d.AtStep(1+2*i, d.Watched()).Wait(func() { harness.Must(t, cmd.Start()) }, func() error {
			for id, c := range d.All() {
				if id != "c" && c.Status == "running" {
					return nil
				}
			}
			return errors.New("no other container runs")
		}, harness.Signal(cmd, syscall.SIGKILL))
		harness.Must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	d.Eventually("only one container is left", func() error {
		for id := range d.All() { // a container may have started after its client died
			if id != "c" {
				d.Try("rm", "--force", id) // it may just have ended at the end of its stdin
			}
		}
		if list := d.All(); len(list) != 1 {
			return fmt.Errorf("%v", list)
		}
		return consistent(d)
	})
	d.Cleat("rm", "--force", "c")
	d.Cleat("run", "--rm", "busybox", "true") // a client collects the remains of dead clients
	d.Eventually("no FIFO is left", func() error { return harness.Empty(filepath.Join(d.State, "fifo"), 1) })
}
