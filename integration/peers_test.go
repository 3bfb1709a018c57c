package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// containerd is Debian's containerd 1.6 with its own directories.
type containerd struct {
	t       *testing.T
	state   string
	address string
	log     string
}

// startContainerd starts a containerd, which is stopped at the end of the test. It collects garbage only on request,
// because ctr ingests without a lease.
func startContainerd(t *testing.T) *containerd {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-peer")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(base)) })
	c := &containerd{t: t, state: filepath.Join(base, "state"), address: filepath.Join(base, "c.sock"), log: filepath.Join(base, "log")}
	config := filepath.Join(base, "config.toml")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[plugins."io.containerd.gc.v1.scheduler"]
startup_delay = "1h"
mutation_threshold = 1000000
[grpc]
address = %q
[ttrpc]
address = %q
`, filepath.Join(base, "root"), c.state, c.address, c.address+".ttrpc")), 0o600))
	log, err := os.Create(c.log)
	must(t, err)
	defer log.Close()
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("containerd's log:\n%s", c.text())
		}
		c.unmount()
	})
	eventually(t, "containerd answers", func() error {
		_, stderr, code := c.ctr("version")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	}, c.text)
	return c
}

func (c *containerd) text() string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// unmount fails the test if mounts are left.
func (c *containerd) unmount() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(c.t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, c.state) {
			c.t.Errorf("mount is left: %s", line)
		}
	}
}

// ctr runs its client against it.
func (c *containerd) ctr(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return ctr(c.t, c.address, args...)
}

// ctr runs containerd's client against the daemon at an address.
func ctr(t *testing.T, address string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", address}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	exit := new(exec.ExitError)
	switch {
	case ctx.Err() != nil:
		t.Fatalf("ctr %q hangs: %q, %q", args, out.String(), errs.String())
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

// atGate is the end of a program that ctr runs: it waits at the gate in a directory bound by gateMount.
const atGate = "; read x < /go/gate"

// gateMount returns the flags by which ctr binds the directory of a gate.
func gateMount(dir string) []string {
	return []string{"--mount", "type=bind,src=" + dir + ",dst=/go,options=rbind:rw"}
}

// ctrGated lets ctr run a program that ends at a gate, and opens the gate when ctr has shown all output of the
// program. ctr abandons FIFOs that it has not opened when it receives the exit, with their contents.
func ctrGated(t *testing.T, address string, open func(), out, errs string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", address}, args...)...)
	outPipe, err := cmd.StdoutPipe()
	must(t, err)
	errPipe, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	gotOut, gotErr := make([]byte, len(out)), make([]byte, len(errs))
	_, err = io.ReadFull(outPipe, gotOut)
	_, err2 := io.ReadFull(errPipe, gotErr)
	open()
	restOut, err3 := io.ReadAll(outPipe)
	restErr, err4 := io.ReadAll(errPipe)
	stdout, stderr = string(gotOut)+string(restOut), string(gotErr)+string(restErr)
	if err := errors.Join(err, err2, err3, err4, ctx.Err()); err != nil {
		t.Fatalf("ctr %q: %v: %q, %q", args, err, stdout, stderr)
	}
	return stdout, stderr, exitCode(t, cmd.Wait())
}

// watchEvents runs `ctr events` and waits until it shows events; the returned function returns its output so far.
func watchEvents(t *testing.T, address string) (shown func() string) {
	t.Helper()
	cmd := exec.Command("ctr", "--address", address, "events")
	r, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	s := newScreen(struct {
		io.Reader
		io.Writer
	}{r, io.Discard})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	eventually(t, "ctr shows events", func() error {
		if _, stderr, code := ctr(t, address, "namespaces", "label", "default", "watched=yes"); code != 0 {
			return errors.New(stderr)
		}
		return inOrder(s.text(), "/namespaces/update")
	}, s.text)
	return s.text
}

// inOrder returns an error unless s contains the texts one after the other.
func inOrder(s string, texts ...string) error {
	rest := s
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			return fmt.Errorf("%q is missing or out of order in:\n%s", text, s)
		}
		rest = after
	}
	return nil
}

func TestShim_UnderContainerd16(t *testing.T) {
	c := startContainerd(t)
	fifos := t.TempDir()
	shim := filepath.Join(binaries, "containerd-shim-cleat-v2")
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := c.ctr(args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, c.text())
		}
		return strings.TrimSpace(stdout)
	}
	image := "docker.io/library/busybox:latest"
	ok("images", "import", "--index-name", image, busyboxArchive(t))
	events := watchEvents(t, c.address)
	run := func(args ...string) []string {
		return append([]string{"run", "--runtime", shim, "--fifo-dir", fifos}, args...)
	}

	dir, open := gate(t, 1)
	stdout, stderr, code := ctrGated(t, c.address, open, "out\n", "err\n",
		run(append(gateMount(dir), "--rm", image, "one", "sh", "-c", "echo out; echo err >&2"+atGate+"; exit 42")...)...)
	if stdout != "out\n" || code != 42 || !strings.Contains(stderr, "err") {
		t.Errorf("run: %q, %q, code %d", stdout, stderr, code)
	}
	eventually(t, "containerd published the events in order", func() error {
		return inOrder(events(), "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/delete")
	}, c.text)

	ok(run(append(gateMount(dir), "-d", image, "two", "sh", "-c", trapping(9))...)...)
	eventually(t, "the container is ready", func() error {
		_, stderr, code := c.ctr("tasks", "exec", "--fifo-dir", fifos, "--exec-id", "ready", "two", "test", "-e", "/ready")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	}, c.text)
	pids := ok("tasks", "ls")
	if !strings.Contains(pids, "two") || !strings.Contains(pids, "RUNNING") {
		t.Errorf("tasks ls:\n%s", pids)
	}
	stdout, _, code = ctrGated(t, c.address, open, "in\n", "", "tasks", "exec", "--fifo-dir", fifos, "--exec-id", "x", "two", "sh", "-c", "echo in"+atGate+"; exit 5")
	if stdout != "in\n" || code != 5 {
		t.Errorf("exec: %q, %q, code %d", stdout, stderr, code)
	}
	ok("tasks", "pause", "two")
	if text := ok("tasks", "ls"); !strings.Contains(text, "PAUSED") {
		t.Errorf("tasks ls after pause:\n%s", text)
	}
	ok("tasks", "resume", "two")
	ok("tasks", "metrics", "two")
	ok("tasks", "ps", "two")
	ok("tasks", "kill", "--signal", "SIGTERM", "two")
	eventually(t, "the container has ended", func() error {
		if text := ok("tasks", "ls"); !strings.Contains(text, "STOPPED") {
			return errors.New(text)
		}
		return nil
	}, c.text)
	if _, stderr, code := c.ctr("tasks", "delete", "two"); code != 0 || !strings.Contains(stderr, "exit code 9") {
		t.Errorf("tasks delete: code %d, %q", code, stderr)
	}
	ok("containers", "delete", "two")
	eventually(t, "containerd published the exec's exit", func() error {
		return inOrder(events(), "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete")
	}, c.text)
	eventually(t, "no shim, bundle or socket is left", func() error {
		peer := &Daemon{t: t, State: c.state}
		return errors.Join(peer.leakedProcesses(),
			empty(filepath.Join(c.state, "io.containerd.runtime.v2.task"), 2), empty(filepath.Join(c.state, "runc"), 2),
			empty(filepath.Join(filepath.Dir(c.address), "s"), 1))
	}, c.text)
}

func TestCtr_OnCleatd(t *testing.T) {
	d := Start(t)
	fifos := t.TempDir()
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, d.Log())
		}
		return strings.TrimSpace(stdout)
	}
	if text := ok("namespaces", "ls"); !strings.Contains(text, "default") {
		t.Errorf("namespaces:\n%s", text)
	}
	ok("namespaces", "create", "other")
	ok("namespaces", "label", "other", "a=b")
	ok("namespaces", "remove", "other")
	ok("version")
	ok("plugins", "ls")
	events := watchEvents(t, d.Address)

	image := "docker.io/library/busybox:latest"
	ok("images", "import", "--no-unpack", "--index-name", image, busyboxArchive(t))
	if text := ok("images", "ls"); !strings.Contains(text, image) {
		t.Errorf("images:\n%s", text)
	}
	ok("content", "ls")
	d.Cleat("run", "--rm", image, "true") // cleat unpacks the image imported by ctr
	if text := ok("snapshots", "ls"); !strings.Contains(text, "Committed") {
		t.Errorf("snapshots:\n%s", text)
	}

	dir, open := gate(t, 1)
	run := append(gateMount(dir), "--fifo-dir", fifos)
	stdout, stderr, code := ctrGated(t, d.Address, open, "out\n", "", append(append([]string{"run", "--rm"}, run...), image, "one", "sh", "-c", "echo out"+atGate+"; exit 42")...)
	if stdout != "out\n" || code != 42 {
		t.Errorf("run: %q, %q, code %d", stdout, stderr, code)
	}
	ok(append(append([]string{"run", "-d"}, run...), image, "two", "sh", "-c", trapping(9))...)
	d.ready("two")
	if text := ok("containers", "ls"); !strings.Contains(text, "two") {
		t.Errorf("containers:\n%s", text)
	}
	if c := d.ps("two"); c.Status != "running" {
		t.Errorf("ps shows %s", c.Status)
	}
	d.Eventually("events are published in order", func() error { // before the daemon stops, and ctr with it
		return inOrder(events(), "/images/create", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	})
	d.Restart()
	d.status("two", "running")
	stdout, stderr, code = ctrGated(t, d.Address, open, "in\n", "", "tasks", "exec", "--fifo-dir", fifos, "--exec-id", "x", "two", "sh", "-c", "echo in"+atGate+"; exit 5")
	if stdout != "in\n" || code != 5 {
		t.Errorf("exec: %q, %q, code %d", stdout, stderr, code)
	}
	ok("tasks", "pause", "two")
	ok("tasks", "resume", "two")
	d.Eventually("metrics are present", func() error { // a slow shim is left out
		if _, stderr, code := ctr(t, d.Address, "tasks", "metrics", "two"); code != 0 {
			return errors.New(stderr)
		}
		return nil
	})
	ok("tasks", "kill", "two")
	d.status("two", "stopped")
	if _, stderr, code := ctr(t, d.Address, "tasks", "delete", "two"); code != 0 || !strings.Contains(stderr, "exit code 9") {
		t.Errorf("tasks delete: code %d, %q", code, stderr)
	}
	ok("containers", "delete", "two")
	if _, stderr, code := ctr(t, d.Address, "run", "--rm", "nosuch", "three", "true"); code == 0 || !strings.Contains(stderr, "not found") {
		t.Errorf("run of an unknown image: code %d, %q", code, stderr)
	}
	ok("images", "rm", image)
}

func TestForeignShim_UnderCleatd(t *testing.T) {
	foreign, err := exec.LookPath("containerd-shim-runc-v2")
	must(t, err)
	base, err := os.MkdirTemp("", "cleat-it")
	must(t, err)
	config := filepath.Join(base, "config.toml")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf("version = 1\n[runtimes]\n\"io.containerd.runc.v2\" = %q\n", foreign)), 0o600))
	d := StartAt(t, base, "--config", config)
	d.Busybox()
	for _, runtime := range []string{foreign, "io.containerd.runc.v2"} {
		stdout, stderr, code := d.Try("run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", "echo out; echo err >&2; exit 42")
		if stdout != "out\n" || stderr != "err\n" || code != 42 {
			t.Errorf("run with %s: %q, %q, code %d", runtime, stdout, stderr, code)
		}
	}
	d.Cleat("run", "-d", "--runtime", "io.containerd.runc.v2", "--name", "c", "busybox", "sh", "-c", "echo up; "+trapping(9))
	d.ready("c")
	pid := d.ps("c").Pid
	if text, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.shims()["c"].Pid)); err != nil || text != foreign {
		t.Errorf("the shim is %q, %v", text, err)
	}
	if out, _, code := d.Try("exec", "c", "sh", "-c", "echo in; exit 5"); out != "in\n" || code != 5 {
		t.Errorf("exec: %q, code %d", out, code)
	}
	d.Restart()
	if c := d.status("c", "running"); c.Pid != pid {
		t.Errorf("pid %d after a restart, %d before", c.Pid, pid)
	}
	if out, _, code := d.Try("exec", "c", "sh", "-c", "echo in; exit 5"); out != "in\n" || code != 5 {
		t.Errorf("exec after a restart: %q, code %d", out, code)
	}
	d.Cleat("pause", "c")
	d.status("c", "paused")
	d.Cleat("resume", "c")
	d.Cleat("stop", "c")
	if c := d.status("c", "stopped"); c.ExitCode != 9 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	d.logs("c", "up")
	d.Cleat("rm", "c")

	// A shim and its container die while the daemon is away.
	d.Cleat("run", "-d", "--runtime", foreign, "--name", "c", "busybox", "sleep", "1000")
	shim := d.shims()["c"].Pid
	d.Kill9()
	killPid(t, shim)
	d.Begin()
	d.status("c", "stopped")
	d.Cleat("rm", "c")
}
