package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/spec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// size is the number of repetitions in a test: few, or full if CLEAT_FULL is 1.
func size(few, full int) int {
	if os.Getenv("CLEAT_FULL") == "1" {
		return full
	}
	return few
}

// shimShown is an object of `shim ls --format json`.
type shimShown struct {
	ID      string `json:"id"`
	Pid     int    `json:"pid"`
	Version string `json:"version"`
	Socket  string `json:"socket"`
	State   string `json:"state"`
}

// shims returns the daemon's shims by the id of their container.
func (d *Daemon) shims() map[string]shimShown {
	d.t.Helper()
	var list []shimShown
	must(d.t, json.Unmarshal([]byte(d.Cleat("shim", "ls", "--all-namespaces", "--format", "json")), &list))
	out := make(map[string]shimShown)
	for _, s := range list {
		out[s.ID] = s
	}
	return out
}

// all returns every container that ps lists, by id.
func (d *Daemon) all() map[string]shown {
	d.t.Helper()
	var list []shown
	must(d.t, json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list))
	out := make(map[string]shown)
	for _, c := range list {
		out[c.ID] = c
	}
	return out
}

// freeze stops a process. The returned function, or the end of the test, resumes it.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	must(t, unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0))
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0) // it may have ended
		must(t, unix.Close(fd))
	})
	return func() { must(t, unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)) }
}

// stat returns the fields of a process after its name: the state is the first, the start time the 19th.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+1:]), nil
}

// alive reports whether a process exists and is not a zombie.
func alive(pid int) bool {
	f, err := stat(pid)
	return err == nil && len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// shimProcesses returns the pids of this daemon's live shims, known to it or not.
func (d *Daemon) shimProcesses() []int {
	d.t.Helper()
	return d.processes("containerd-shim-")
}

// processes returns the pids of live processes with the state directory on their command line: shims, OCI runtimes,
// and the daemon. If prefixes are given, the program's name must begin with one.
func (d *Daemon) processes(prefixes ...string) (pids []int) {
	d.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(d.t, err)
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			continue // it has ended
		}
		name, _, _ := strings.Cut(string(data), "\x00")
		named := func(prefix string) bool { return strings.HasPrefix(filepath.Base(name), prefix) }
		if strings.Contains(string(data), d.State) && (len(prefixes) == 0 || slices.ContainsFunc(prefixes, named)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			must(d.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// within fails the test if f takes longer than limit, as f does if it waits for something that must not delay it.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	took := time.Since(began)
	t.Logf("%s: %s", what, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s took %s", what, took)
	}
}

// ociWrapper puts an OCI runtime before the real one in PATH: a shell script that runs body, with the verb in $verb,
// and then runc. Tests call it before they start the daemon.
func ociWrapper(t *testing.T, body string) {
	t.Helper()
	real, err := exec.LookPath("runc")
	must(t, err)
	dir := t.TempDir()
	script := "#!/bin/sh\nverb=\nfor a in \"$@\"; do case $a in\n" +
		"create|run|start|exec|kill|delete|pause|resume|state|ps|update) verb=$a; break;;\nesac; done\n" +
		body + "\nexec " + real + " \"$@\"\n"
	must(t, os.WriteFile(filepath.Join(dir, "runc"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// trapping is a program that exits with a code on SIGTERM once /ready exists. An earlier signal is lost, because an
// init ignores signals that it does not handle.
func trapping(code int) string {
	return fmt.Sprintf(`trap "exit %d" TERM; touch /ready; while :; do sleep 0.1; done`, code)
}

// ready waits until the program of a container has created /ready.
func (d *Daemon) ready(id string) {
	d.t.Helper()
	d.Eventually(id+" is ready", func() error {
		if _, stderr, code := d.Try("exec", id, "test", "-e", "/ready"); code != 0 {
			return fmt.Errorf("code %d, %s", code, stderr)
		}
		return nil
	})
}

// logs waits until the log of a container is as expected. Its program may write after its start was reported.
func (d *Daemon) logs(id, want string) {
	d.t.Helper()
	d.Eventually("the log of "+id, func() error {
		if out := d.Cleat("logs", id); out != want {
			return fmt.Errorf("log %q, want %q", out, want)
		}
		return nil
	})
}

// exists returns an error while the file does not exist.
func exists(path string) func() error {
	return func() error {
		_, err := os.Lstat(path)
		return err
	}
}

// gone returns an error while the process exists.
func gone(pid int) func() error {
	return func() error {
		if alive(pid) {
			return fmt.Errorf("process %d is alive", pid)
		}
		return nil
	}
}

// busyboxSpec is the runtime spec of a command in the test image.
func busyboxSpec(t *testing.T, args ...string) *specs.Spec {
	t.Helper()
	s, err := spec.Generate(spec.Image{Env: []string{"PATH=/bin"}}, spec.Options{Args: args})
	must(t, err)
	return s
}

// quickRun starts a container through the Go client, its output in the daemon's log.
func (d *Daemon) quickRun(c *client.Client, id string, args ...string) client.Started {
	d.t.Helper()
	s, err := c.Run(d.t.Context(), client.RunRequest{ID: id, Image: "busybox", Spec: busyboxSpec(d.t, args...), Log: true})
	if err != nil {
		d.t.Fatalf("%v\n%s", err, d.Log())
	}
	return s
}

// grpc connects to the daemon's gRPC socket; the context names the namespace "default".
func (d *Daemon) grpc() (context.Context, *grpc.ClientConn) {
	d.t.Helper()
	conn, err := grpc.NewClient("unix://"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(d.t, err)
	d.t.Cleanup(func() { must(d.t, conn.Close()) })
	return metadata.AppendToOutgoingContext(d.t.Context(), "containerd-namespace", "default"), conn
}

// consistent returns an error unless the live shims are exactly those of the running containers in ps, each with its
// process.
func (d *Daemon) consistent() error {
	var errs error
	running := 0
	known := d.shims()
	for id, c := range d.all() {
		switch c.Status {
		case "running", "created", "paused":
			running++
			if !alive(c.Pid) {
				errs = errors.Join(errs, fmt.Errorf("%s is %s without its process %d", id, c.Status, c.Pid))
			}
			if _, ok := known[id]; !ok {
				errs = errors.Join(errs, fmt.Errorf("%s is %s without a shim", id, c.Status))
			}
		case "stopped":
		default:
			errs = errors.Join(errs, fmt.Errorf("%s is %s", id, c.Status))
		}
	}
	if live := d.shimProcesses(); len(live) != running || len(known) != running {
		errs = errors.Join(errs, fmt.Errorf("%d containers run, %d shims live (%v), %d are known (%v)", running, len(live), live, len(known), known))
	}
	return errs
}

// killPid kills a process started by the test's daemon, and waits until it has ended.
func killPid(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process %d to kill", pid)
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, "a killed process has ended", gone(pid), func() string { return "" })
}
