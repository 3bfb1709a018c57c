package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Daemon is a cleatd with its own directories.
type Daemon struct {
	T       *testing.T
	Root    string
	State   string
	Address string
	Args    []string
	Behind  []string // a command line that becomes the daemon, with the daemon's own as arguments
	Cmd     *exec.Cmd
	Exited  chan struct{}
	LogFile string
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

// StartAt is Start with a given base directory, which is removed at the end.
func StartAt(t *testing.T, base string, args ...string) *Daemon {
	t.Helper()
	d := NewDaemon(t, base, args...)
	d.Begin()
	return d
}

// NewDaemon returns a daemon that is not started, and is stopped and checked for leaks at the end of the test.
func NewDaemon(t *testing.T, base string, args ...string) *Daemon {
	d := &Daemon{
		T: t, Root: filepath.Join(base, "root"), State: filepath.Join(base, "state"),
		Address: filepath.Join(base, "state", "cleat.sock"), Args: args, LogFile: filepath.Join(base, "cleatd.log"),
	}
	t.Cleanup(func() {
		d.Cleanup()
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	return d
}

// StartUncollected is Start of a daemon that collects no garbage until the first request for it.
func StartUncollected(t *testing.T) *Daemon {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.toml")
	Must(t, os.WriteFile(config, []byte("[gc]\nstartup_delay = \"1h\"\n"), 0o600))
	return Start(t, "--config", config)
}

// Begin starts the daemon's process and waits until it answers.
func (d *Daemon) Begin() {
	d.T.Helper()
	log, err := os.OpenFile(d.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.T.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--root", d.Root, "--state", d.State, "--address", d.Address, "--log-level", "debug"}, d.Args...)
	line := append(append(d.Behind[:len(d.Behind):len(d.Behind)], Binary("cleatd")), args...)
	d.Cmd = exec.Command(line[0], line[1:]...)
	d.Cmd.Stdout, d.Cmd.Stderr = log, log
	if err := d.Cmd.Start(); err != nil {
		d.T.Fatal(err)
	}
	d.Exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // each test checks how it ended
		close(exited)
	}(d.Cmd, d.Exited)
	d.Eventually("the daemon answers", func() error {
		select {
		case <-d.Exited:
			d.T.Fatalf("cleatd ended:\n%s", d.Log())
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
	d.T.Helper()
	if err := d.Cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.T.Fatal(err)
	}
	select {
	case <-d.Exited:
	case <-time.After(Limit):
		d.T.Fatalf("cleatd does not exit on %s:\n%s", sig, d.Log())
	}
}

// Restart kills the daemon and starts it again.
func (d *Daemon) Restart() {
	d.T.Helper()
	d.Kill9()
	d.Begin()
}

// Log returns the log of the daemon, and of the shims of the present tasks.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(d.LogFile)
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

// Cleanup stops every process and fails the test if anything is left.
func (d *Daemon) Cleanup() {
	defer func() { _ = d.Cmd.Process.Kill() }() // if anything below fails
	if d.T.Failed() {
		d.T.Logf("cleatd's log:\n%s", d.Log())
	}
	select {
	case <-d.Exited:
		d.Begin()
	default:
	}
	for _, ns := range strings.Fields(d.Cleat("namespace", "ls")) {
		for _, id := range strings.Fields(d.Cleat("--namespace", ns, "ps", "--all", "--quiet")) {
			if _, stderr, code := d.Try("--namespace", ns, "rm", "--force", id); code != 0 && !strings.Contains(stderr, "not found") {
				d.T.Errorf("remove %s: %s", id, stderr)
			}
		}
	}
	Eventually(d.T, "nothing is left of the containers", d.Leaks, d.Log)
	d.Stop()
	if err := d.leaksAfterStop(); err != nil {
		d.T.Error(err)
	}
	if strings.Contains(d.Log(), "WARNING: DATA RACE") || strings.Contains(d.Log(), "panic:") {
		d.T.Errorf("crash in the daemon's log:\n%s", d.Log())
	}
}

// StartForeign starts a daemon whose containers get containerd's shim, with a delay in its verb delete.
func StartForeign(t *testing.T) *Daemon {
	t.Helper()
	shim, err := exec.LookPath("containerd-shim-runc-v2")
	Must(t, err)
	base, err := os.MkdirTemp("", "cleat-it")
	Must(t, err)
	foreign := filepath.Join(base, "containerd-shim-slow-v2")
	Must(t, os.WriteFile(foreign, []byte("#!/bin/sh\nfor last; do :; done\n[ \"$last\" != delete ] || sleep 3\nexec "+shim+" \"$@\"\n"), 0o755))
	config := filepath.Join(base, "config.toml")
	Must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\n[runtimes]\n\"io.containerd.runc.v2\" = %q\n", foreign), 0o600))
	return StartAt(t, base, "--config", config)
}
