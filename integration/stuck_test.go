package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/rpc"
)

// shim connects to a container's shim as another daemon would.
func (d *Daemon) shim(id string) taskapi.TTRPCTaskService {
	d.t.Helper()
	path, err := rpc.SocketPath(d.shims()[id].Socket)
	must(d.t, err)
	conn, err := rpc.DialSocket(d.t.Context(), path)
	must(d.t, err)
	c := ttrpc.NewClient(conn)
	d.t.Cleanup(func() { must(d.t, c.Close()) })
	return taskapi.NewTTRPCTaskClient(c)
}

func TestStateAndWait_OCIRuntimeStuck_Return(t *testing.T) {
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "go")
	ociWrapper(t, fmt.Sprintf(`if [ "$verb" = exec ]; then : > %s; while ! [ -e %s ]; do sleep 0.05; done; fi`, started, release))
	d := Start(t)
	d.Busybox()
	c := d.Client()
	d.quickRun(c, "c", "sleep", "1000")
	slow := d.Command("exec", "c", "true")
	must(t, slow.Start())
	d.Eventually("the OCI runtime is busy", exists(started))

	shim := d.shim("c")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	within(t, "State, Get and List during the call", func() {
		st, err := shim.State(ctx, &taskapi.StateRequest{ID: "c"})
		must(t, err)
		if st.Status != task.Status_RUNNING {
			t.Errorf("status %s in the shim", st.Status)
		}
		p, err := c.State(ctx, "c", "")
		must(t, err)
		if p.Status != "running" || d.ps("c").Status != "running" {
			t.Errorf("status %s in the daemon", p.Status)
		}
	})
	within(t, "Kill and Wait during the call", func() {
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
		must(t, c.Kill(ctx, "c", client.KillRequest{Signal: unix.SIGKILL}))
		for range 2 {
			must(t, <-waits)
		}
	})
	must(t, os.WriteFile(release, nil, 0o600))
	if err := slow.Wait(); err == nil {
		t.Error("exec in a killed container succeeded")
	}
}

func TestExit_ChildHoldsOutput_IsPublished(t *testing.T) {
	d := Start(t)
	d.Busybox()
	const script = "sleep 1000 & echo ok"
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	logger := filepath.Join(t.TempDir(), "logger")
	must(t, os.WriteFile(logger, []byte("#!/bin/sh\nexec 5>&-\ncat <&3 >> \"$0.out\" &\ncat <&4 >/dev/null\nwait\n"), 0o755))
	for name, args := range map[string][]string{
		"run":               {"run", "--rm", "busybox"},
		"run with input":    {"run", "--rm", "-i", "busybox"},
		"run with a file":   {"run", "--rm", "--log", "file://" + filepath.Join(t.TempDir(), "log"), "busybox"},
		"run with a logger": {"run", "--rm", "--log", "binary://" + logger, "busybox"},
		"exec":              {"exec", "c"},
	} {
		within(t, name, func() {
			out, stderr, code := d.Try(append(args, "sh", "-c", script)...)
			if code != 0 || out != "ok\n" && name != "run with a logger" {
				t.Errorf("%s: %q, %q, code %d", name, out, stderr, code)
			}
		})
	}
	eventually(t, "the logger has the output", func() error {
		if data, err := os.ReadFile(logger + ".out"); string(data) != "ok\n" {
			return fmt.Errorf("%q, %w", data, err)
		}
		return nil
	}, d.Log)

	// In the host's pid namespace the child outlives the init, which is impossible in a pid namespace of its own.
	c := d.Client()
	s := busyboxSpec(t, "sh", "-c", script)
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	dir := t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(dir, "out"), 0o600))
	for name, req := range map[string]client.RunRequest{
		"fifo":   {Stdio: client.Stdio{Stdout: filepath.Join(dir, "out")}},
		"log":    {Log: true},
		"logger": {Stdio: client.Stdio{Stdout: "binary://" + logger, Stderr: "binary://" + logger}},
	} {
		req.ID, req.Image, req.Spec = "host-"+name, "busybox", s
		within(t, "exit and delete with the host's pids, "+name, func() {
			started, err := c.Run(t.Context(), req)
			must(t, err)
			exit, err := c.Wait(t.Context(), req.ID, started.Cursor)
			if err != nil || exit.Status != 0 {
				t.Errorf("%s: %v, %v", name, exit, err)
			}
			must(t, c.Remove(t.Context(), req.ID, true))
		})
	}
}

// holdings counts the threads and descriptors of a process.
func holdings(t *testing.T, pid int) (threads, descriptors int) {
	t.Helper()
	for what, n := range map[string]*int{"task": &threads, "fd": &descriptors} {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, what))
		must(t, err)
		*n = len(list)
	}
	return threads, descriptors
}

func TestClientKilled_AtFIFO_LeavesNothing(t *testing.T) {
	d := Start(t)
	d.Busybox()
	c := d.Client()
	d.quickRun(c, "c", "sleep", "1000")
	pid := d.shims()["c"].Pid
	threads, descriptors := holdings(t, pid)

	// No process opens the other ends of these.
	const clients = 20
	process := busyboxSpec(t, "true").Process
	for i := range clients {
		dead, err := client.Dial(t.Context(), d.Address, client.Options{})
		must(t, err)
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		must(t, os.Mkdir(dir, 0o700))
		io := client.Stdio{Stdin: filepath.Join(dir, "in"), Stdout: filepath.Join(dir, "out"), Stderr: filepath.Join(dir, "err")}
		for _, path := range []string{io.Stdin, io.Stdout, io.Stderr} {
			must(t, unix.Mkfifo(path, 0o600))
		}
		exec := fmt.Sprintf("x%d", i)
		must(t, dead.Exec(t.Context(), "c", exec, process, io))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Millisecond)
		_, _ = dead.Start(ctx, "c", exec) // interrupted, or complete
		cancel()
		must(t, dead.Close())
		must(t, os.RemoveAll(dir))
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

	// The same for clients that are killed at many moments of a run.
	for i := range 10 {
		cmd := d.Command("run", "-i", "--rm", "busybox", "cat")
		_, err := cmd.StdinPipe() // open until Wait
		must(t, err)
		must(t, cmd.Start())
		pause(time.Duration(i) * 10 * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	d.Eventually("only one container is left", func() error {
		for id := range d.all() { // a container may have started after its client died
			if id != "c" {
				d.Try("rm", "--force", id) // it may just have ended at the end of its stdin
			}
		}
		if list := d.all(); len(list) != 1 {
			return fmt.Errorf("%v", list)
		}
		return d.consistent()
	})
	d.Cleat("rm", "--force", "c")
	d.Cleat("run", "--rm", "busybox", "true") // a client collects the remains of dead clients
	d.Eventually("no FIFO is left", func() error { return empty(filepath.Join(d.State, "fifo"), 1) })
}
