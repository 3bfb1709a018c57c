package peers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// watchEvents runs `ctr events` and waits until it shows events; the returned function returns its output so far.
func watchEvents(t *testing.T, address string) (shown func() string) {
	t.Helper()
	cmd := exec.Command("ctr", "--address", address, "events")
	r, err := cmd.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	s := harness.NewScreen(struct {
		io.Reader
		io.Writer
	}{r, io.Discard})
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	harness.Eventually(t, "ctr shows events", func() error {
		if _, stderr, code := harness.Ctr(t, address, "namespaces", "label", "default", "watched=yes"); code != 0 {
			return errors.New(stderr)
		}
		return harness.InOrder(s.Text(), "/namespaces/update")
	}, s.Text)
	return s.Text
}

func TestShim_UnderContainerd16(t *testing.T) {
	t.Parallel()
	c := harness.StartContainerd(t)
	fifos := t.TempDir()
	shim := harness.Binary("containerd-shim-cleat-v2")
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := c.Ctr(args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, c.Text())
		}
		return strings.TrimSpace(stdout)
	}
	image := "docker.io/library/busybox:latest"
	ok("images", "import", "--index-name", image, harness.BusyboxArchive(t))
	events := watchEvents(t, c.Address)
	run := func(args ...string) []string {
		return append([]string{"run", "--runtime", shim, "--fifo-dir", fifos}, args...)
	}

	dir, open := harness.Gate(t, 1)
	stdout, stderr, code := harness.CtrGated(t, c.Address, open, "out\n", "err\n",
		run(append(harness.GateMount(dir), "--rm", image, "one", "sh", "-c", "echo out; echo err >&2"+harness.AtGate+"; exit 42")...)...)
	if stdout != "out\n" || code != 42 || !strings.Contains(stderr, "err") {
		t.Errorf("run: %q, %q, code %d", stdout, stderr, code)
	}
	harness.Eventually(t, "containerd published the events in order", func() error {
		return harness.InOrder(events(), "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/delete")
	}, c.Text)

	ok(run(append(harness.GateMount(dir), "-d", image, "two", "sh", "-c", harness.Trapping(9))...)...)
	harness.Eventually(t, "the container is ready", func() error {
		_, stderr, code := c.Ctr("tasks", "exec", "--fifo-dir", fifos, "--exec-id", "ready", "two", "test", "-e", "/ready")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	}, c.Text)
	pids := ok("tasks", "ls")
	if !strings.Contains(pids, "two") || !strings.Contains(pids, "RUNNING") {
		t.Errorf("tasks ls:\n%s", pids)
	}
	stdout, _, code = harness.CtrGated(t, c.Address, open, "in\n", "", "tasks", "exec", "--fifo-dir", fifos, "--exec-id", "x", "two", "sh", "-c", "echo in"+harness.AtGate+"; exit 5")
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
	harness.Eventually(t, "the container has ended", func() error {
		if text := ok("tasks", "ls"); !strings.Contains(text, "STOPPED") {
			return errors.New(text)
		}
		return nil
	}, c.Text)
	if _, stderr, code := c.Ctr("tasks", "delete", "two"); code != 0 || !strings.Contains(stderr, "exit code 9") {
		t.Errorf("tasks delete: code %d, %q", code, stderr)
	}
	ok("containers", "delete", "two")
	harness.Eventually(t, "containerd published the exec's exit", func() error {
		return harness.InOrder(events(), "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit", "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete")
	}, c.Text)
	harness.Eventually(t, "no shim, bundle or socket is left", func() error {
		peer := &harness.Daemon{T: t, State: c.State}
		return errors.Join(peer.LeakedProcesses(),
			harness.Empty(filepath.Join(c.State, "io.containerd.runtime.v2.task"), 2), harness.Empty(filepath.Join(c.State, "runc"), 2),
			harness.Empty(filepath.Join(filepath.Dir(c.Address), "s"), 1))
	}, c.Text)
}

func TestCtr_OnCleatd(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	fifos := t.TempDir()
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := harness.Ctr(t, d.Address, args...)
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
	ok("images", "import", "--no-unpack", "--index-name", image, harness.BusyboxArchive(t))
	if text := ok("images", "ls"); !strings.Contains(text, image) {
		t.Errorf("images:\n%s", text)
	}
	ok("content", "ls")
	d.Cleat("run", "--rm", image, "true") // cleat unpacks the image imported by ctr
	if text := ok("snapshots", "ls"); !strings.Contains(text, "Committed") {
		t.Errorf("snapshots:\n%s", text)
	}

	dir, open := harness.Gate(t, 1)
	run := append(harness.GateMount(dir), "--fifo-dir", fifos)
	stdout, stderr, code := harness.CtrGated(t, d.Address, open, "out\n", "", append(append([]string{"run", "--rm"}, run...), image, "one", "sh", "-c", "echo out"+harness.AtGate+"; exit 42")...)
	if stdout != "out\n" || code != 42 {
		t.Errorf("run: %q, %q, code %d", stdout, stderr, code)
	}
	ok(append(append([]string{"run", "-d"}, run...), image, "two", "sh", "-c", harness.Trapping(9))...)
	d.Ready("two")
	if text := ok("containers", "ls"); !strings.Contains(text, "two") {
		t.Errorf("containers:\n%s", text)
	}
	if c := d.Ps("two"); c.Status != "running" {
		t.Errorf("ps shows %s", c.Status)
	}
	d.Eventually("events are published in order", func() error { // before the daemon stops, and ctr with it
		return harness.InOrder(events(), "/images/create", "/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
	})
	d.Restart()
	d.Status("two", "running")
	stdout, stderr, code = harness.CtrGated(t, d.Address, open, "in\n", "", "tasks", "exec", "--fifo-dir", fifos, "--exec-id", "x", "two", "sh", "-c", "echo in"+harness.AtGate+"; exit 5")
	if stdout != "in\n" || code != 5 {
		t.Errorf("exec: %q, %q, code %d", stdout, stderr, code)
	}
	ok("tasks", "pause", "two")
	ok("tasks", "resume", "two")
	d.Eventually("metrics are present", func() error { // a slow shim is left out
		if _, stderr, code := harness.Ctr(t, d.Address, "tasks", "metrics", "two"); code != 0 {
			return errors.New(stderr)
		}
		return nil
	})
	ok("tasks", "kill", "two")
	d.Status("two", "stopped")
	if _, stderr, code := harness.Ctr(t, d.Address, "tasks", "delete", "two"); code != 0 || !strings.Contains(stderr, "exit code 9") {
		t.Errorf("tasks delete: code %d, %q", code, stderr)
	}
	ok("containers", "delete", "two")
	if _, stderr, code := harness.Ctr(t, d.Address, "run", "--rm", "nosuch", "three", "true"); code == 0 || !strings.Contains(stderr, "not found") {
		t.Errorf("run of an unknown image: code %d, %q", code, stderr)
	}
	ok("images", "rm", image)
}

func TestForeignShim_UnderCleatd(t *testing.T) {
	t.Parallel()
	foreign, err := exec.LookPath("containerd-shim-runc-v2")
	harness.Must(t, err)
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	config := filepath.Join(base, "config.toml")
	harness.Must(t, os.WriteFile(config, []byte(fmt.Sprintf("version = 1\n[runtimes]\n\"io.containerd.runc.v2\" = %q\n", foreign)), 0o600))
	d := harness.StartAt(t, base, "--config", config)
	d.Busybox()
	for _, runtime := range []string{foreign, "io.containerd.runc.v2"} {
		stdout, stderr, code := d.Try("run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", "echo out; echo err >&2; exit 42")
		if stdout != "out\n" || stderr != "err\n" || code != 42 {
			t.Errorf("run with %s: %q, %q, code %d", runtime, stdout, stderr, code)
		}
	}
	d.Cleat("run", "-d", "--runtime", "io.containerd.runc.v2", "--name", "c", "busybox", "sh", "-c", "echo up; "+harness.Trapping(9))
	d.Ready("c")
	pid := d.Ps("c").Pid
	if text, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.Shims()["c"].Pid)); err != nil || text != foreign {
		t.Errorf("the shim is %q, %v", text, err)
	}
	if out, _, code := d.Try("exec", "c", "sh", "-c", "echo in; exit 5"); out != "in\n" || code != 5 {
		t.Errorf("exec: %q, code %d", out, code)
	}
	d.Restart()
	if c := d.Status("c", "running"); c.Pid != pid {
		t.Errorf("pid %d after a restart, %d before", c.Pid, pid)
	}
	if out, _, code := d.Try("exec", "c", "sh", "-c", "echo in; exit 5"); out != "in\n" || code != 5 {
		t.Errorf("exec after a restart: %q, code %d", out, code)
	}
	d.Cleat("pause", "c")
	d.Status("c", "paused")
	d.Cleat("resume", "c")
	d.Cleat("stop", "c")
	if c := d.Status("c", "stopped"); c.ExitCode != 9 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	d.Logs("c", "up")
	d.Cleat("rm", "c")

	// A shim and its container die while the daemon is away.
	d.Cleat("run", "-d", "--runtime", foreign, "--name", "c", "busybox", "sleep", "1000")
	shim := d.Shims()["c"].Pid
	d.Kill9()
	harness.KillPid(t, shim)
	d.Begin()
	d.Status("c", "stopped")
	d.Cleat("rm", "c")
}
