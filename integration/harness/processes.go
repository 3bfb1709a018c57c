package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ended signals a command of the CLI repeatedly until it has ended, as an impatient user does.
func (d *Daemon) Ended(cmd *exec.Cmd, sig syscall.Signal) error {
	d.T.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	again := time.NewTicker(300 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(Limit)
	for {
		if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			d.T.Fatal(err)
		}
		select {
		case err := <-done:
			return err
		case <-again.C:
		case <-deadline:
			d.T.Fatalf("the CLI does not exit on %s\n%s", sig, d.Log())
		}
	}
}

// Freeze stops a process. The returned function, or the end of the test, resumes it.
func Freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	Must(t, err)
	Must(t, unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0))
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0) // it may have ended
		Must(t, unix.Close(fd))
	})
	return func() { Must(t, unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0)) }
}

// stat returns the fields of a process after its name: the state is the first, the start time the 19th.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+1:]), nil
}

// Alive reports whether a process exists and is not a zombie.
func Alive(pid int) bool {
	f, err := stat(pid)
	return err == nil && len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

// ShimProcesses returns the pids of this daemon's live shims, known to it or not.
func (d *Daemon) ShimProcesses() []int {
	d.T.Helper()
	return d.Processes("containerd-shim-")
}

// Processes returns the pids of live processes with the state directory on their command line: shims, OCI runtimes,
// and the daemon. If prefixes are given, the program's name must begin with one.
func (d *Daemon) Processes(prefixes ...string) (pids []int) {
	d.T.Helper()
	processes, err := d.processes()
	Must(d.T, err)
	for _, p := range processes {
		named := func(prefix string) bool { return strings.HasPrefix(filepath.Base(p.args[0]), prefix) }
		if len(prefixes) == 0 || slices.ContainsFunc(prefixes, named) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// process is a process with its command line.
type process struct {
	pid  int
	args []string
}

// processes returns the processes with the state directory on their command line.
func (d *Daemon) processes() ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(data), d.State) {
			continue // it has ended, or is not ours
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		found = append(found, process{pid, strings.Split(string(data), "\x00")})
	}
	return found, nil
}

// OCIWrapper puts an OCI runtime before the real one in PATH: a shell script that runs body, with the verb in $verb,
// and then runc. Tests call it before they start the daemon.
func OCIWrapper(t *testing.T, body string) {
	t.Helper()
	runc, err := exec.LookPath("runc")
	Must(t, err)
	dir := t.TempDir()
	script := "#!/bin/sh\nverb=\nfor a in \"$@\"; do case $a in\n" +
		"create|run|start|exec|kill|delete|pause|resume|state|ps|update) verb=$a; break;;\nesac; done\n" +
		body + "\nexec " + runc + " \"$@\"\n"
	Must(t, os.WriteFile(filepath.Join(dir, "runc"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Gone returns an error while the process exists.
func Gone(pid int) func() error {
	return func() error {
		if Alive(pid) {
			return fmt.Errorf("process %d is alive", pid)
		}
		return nil
	}
}

// KillPid kills a process started by the test's daemon, and waits until it has ended.
func KillPid(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process %d to kill", pid)
	}
	Must(t, unix.Kill(pid, unix.SIGKILL))
	Eventually(t, "a killed process has ended", Gone(pid))
}

// PodShim is a shim under a name that the daemon does not recognise as its own. It holds a sandbox with its tasks.
func PodShim(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(Binary("containerd-shim-cleat-v2"))
	Must(t, err)
	path := filepath.Join(t.TempDir(), "containerd-shim-pods-v2")
	Must(t, os.WriteFile(path, data, 0o755))
	return path
}
