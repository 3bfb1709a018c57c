package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatproject/cleat/client"
)

// limit is how long anything in a test may take that should be quick. It is a deadline for hangs and not a measure.
const limit = 60 * time.Second

// Daemon is a cleatd with its own directories.
type Daemon struct {
	t       *testing.T
	Root    string
	State   string
	Address string
	args    []string
	behind  []string // a command line that becomes the daemon, with the daemon's own as arguments
	cmd     *exec.Cmd
	exited  chan struct{}
	log     string
}

// Start starts a daemon, which is stopped and checked for leaks at the end of the test.
func Start(t *testing.T, args ...string) *Daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	if err != nil {
		t.Fatal(err)
	}
	return StartAt(t, base, args...)
}

// StartBehind is Start through a program that becomes the daemon: it gets the daemon's command line as further
// arguments.
func StartBehind(t *testing.T, program ...string) *Daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, base)
	d.behind = program
	d.Begin()
	return d
}

// StartAt is Start with a given base directory, which is removed at the end.
func StartAt(t *testing.T, base string, args ...string) *Daemon {
	t.Helper()
	d := newDaemon(t, base, args...)
	d.Begin()
	return d
}

// newDaemon returns a daemon that is not started, and is stopped and checked for leaks at the end of the test.
func newDaemon(t *testing.T, base string, args ...string) *Daemon {
	d := &Daemon{
		t: t, Root: filepath.Join(base, "root"), State: filepath.Join(base, "state"),
		Address: filepath.Join(base, "state", "cleat.sock"), args: args, log: filepath.Join(base, "cleatd.log"),
	}
	t.Cleanup(func() {
		d.cleanup()
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	return d
}

// startUncollected is Start of a daemon that collects no garbage until the first request for it.
func startUncollected(t *testing.T) *Daemon {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.toml")
	must(t, os.WriteFile(config, []byte("[gc]\nstartup_delay = \"1h\"\n"), 0o600))
	return Start(t, "--config", config)
}

// Begin starts the daemon's process and waits until it answers.
func (d *Daemon) Begin() {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--root", d.Root, "--state", d.State, "--address", d.Address, "--log-level", "debug"}, d.args...)
	line := append(append(d.behind[:len(d.behind):len(d.behind)], filepath.Join(binaries, "cleatd")), args...)
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // each test checks how it ended
		close(exited)
	}(d.cmd, d.exited)
	d.Eventually("the daemon answers", func() error {
		select {
		case <-d.exited:
			d.t.Fatalf("cleatd ended:\n%s", d.Log())
		default:
		}
		_, stderr, code := d.Try("version")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	})
}

// Kill9 kills the daemon's process and waits for its end.
func (d *Daemon) Kill9() { d.end(syscall.SIGKILL) }

// Stop ends the daemon with SIGTERM.
func (d *Daemon) Stop() { d.end(syscall.SIGTERM) }

func (d *Daemon) end(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	select {
	case <-d.exited:
	case <-time.After(limit):
		d.t.Fatalf("cleatd does not exit on %s:\n%s", sig, d.Log())
	}
}

// Restart kills the daemon and starts it again.
func (d *Daemon) Restart() {
	d.t.Helper()
	d.Kill9()
	d.Begin()
}

// Log returns the log of the daemon, and of the shims of the present tasks.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	shims, err := filepath.Glob(filepath.Join(d.State, "io.containerd.runtime.v2.task", "*", "*", "log"))
	if err != nil {
		return err.Error()
	}
	for _, path := range shims {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue // a FIFO of a foreign shim
		}
		if said, err := os.ReadFile(path); err == nil {
			data = fmt.Appendf(data, "shim of %s:\n%s", filepath.Base(filepath.Dir(path)), said)
		}
	}
	return string(data)
}

// Command returns the CLI with arguments, not started.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, "cleat"), args...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	return cmd
}

// Try runs the CLI until it exits.
func (d *Daemon) Try(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	return d.TryInput("", args...)
}

// TryInput is Try with a standard input.
func (d *Daemon) TryInput(input string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "cleat"), args...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		d.t.Fatalf("cleat %q hangs; stdout %q, stderr %q\n%s", args, out.String(), errOut.String(), d.Log())
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		d.t.Fatal(err)
	}
	return out.String(), errOut.String(), code
}

// Cleat runs the CLI, which must succeed, and returns its trimmed output.
func (d *Daemon) Cleat(args ...string) string {
	d.t.Helper()
	stdout, stderr, code := d.Try(args...)
	if code != 0 {
		d.t.Fatalf("cleat %q: code %d\nstdout: %s\nstderr: %s\n%s", args, code, stdout, stderr, d.Log())
	}
	return strings.TrimSpace(stdout)
}

// Client returns a Go client of the daemon.
func (d *Daemon) Client() *client.Client {
	d.t.Helper()
	c, err := client.Dial(d.t.Context(), d.Address, client.Options{Namespace: "default"})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			d.t.Error(err)
		}
	})
	return c
}

// Eventually calls f until it returns nil, and fails the test if that takes longer than limit.
func (d *Daemon) Eventually(what string, f func() error) {
	d.t.Helper()
	eventually(d.t, what, f, func() string { return d.Log() })
}

func eventually(t *testing.T, what string, f func() error, more func() string) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s: %v\n%s", what, err, more())
		}
	}
}

// Busybox imports the test image, as "busybox".
func (d *Daemon) Busybox() {
	d.t.Helper()
	d.Cleat("image", "import", "--name", "busybox", busyboxArchive(d.t))
}

// cleanup stops every process and fails the test if anything is left.
func (d *Daemon) cleanup() {
	defer func() { _ = d.cmd.Process.Kill() }() // if anything below fails
	if d.t.Failed() {
		d.t.Logf("cleatd's log:\n%s", d.Log())
	}
	select {
	case <-d.exited:
		d.Begin()
	default:
	}
	for _, ns := range strings.Fields(d.Cleat("namespace", "ls")) {
		for _, id := range strings.Fields(d.Cleat("--namespace", ns, "ps", "--all", "--quiet")) {
			if _, stderr, code := d.Try("--namespace", ns, "rm", "--force", id); code != 0 && !strings.Contains(stderr, "not found") {
				d.t.Errorf("remove %s: %s", id, stderr)
			}
		}
	}
	eventually(d.t, "nothing is left of the containers", d.leaks, d.Log)
	d.Stop()
	if err := d.leaksAfterStop(); err != nil {
		d.t.Error(err)
	}
	if strings.Contains(d.Log(), "WARNING: DATA RACE") || strings.Contains(d.Log(), "panic:") {
		d.t.Errorf("crash in the daemon's log:\n%s", d.Log())
	}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
