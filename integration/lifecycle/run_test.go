package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestRun_ReturnsOutputAndExitCode(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for _, code := range []int{0, 1, 42, 137, 143} {
		stdout, stderr, got := d.Try("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit "+strconv.Itoa(code))
		if got != code || stdout != "out\n" || stderr != "err\n" {
			t.Errorf("exit %d: code %d, stdout %q, stderr %q", code, got, stdout, stderr)
		}
	}
}

func TestRun_Detached_EveryCommand(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	if id := d.Cleat("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo up; "+harness.Trapping(5)); id != "web" {
		t.Fatalf("run -d printed %q", id)
	}
	if ids := d.Cleat("ps", "--quiet"); ids != "web" {
		t.Errorf("ps shows %q", ids)
	}
	d.Ready("web")
	d.Restart()
	if out, _, code := d.Try("exec", "web", "sh", "-c", "echo in; exit 7"); out != "in\n" || code != 7 {
		t.Errorf("exec: %q, code %d", out, code)
	}
	d.Cleat("pause", "web")
	if ps := d.Cleat("ps"); !strings.Contains(ps, "paused") {
		t.Errorf("paused container is shown as:\n%s", ps)
	}
	d.Cleat("resume", "web")
	d.Logs("web", "up")
	d.Cleat("stop", "web")
	if code := d.Cleat("wait", "web"); code != "5" {
		t.Errorf("wait: %q", code)
	}
	d.Cleat("rm", "web")
	if ids := d.Cleat("ps", "--all", "--quiet"); ids != "" {
		t.Errorf("ps --all shows %q", ids)
	}
}

// TestStop_WithoutGrace_Kills stops a program that ignores its stop signal.
func TestStop_WithoutGrace_Kills(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", `trap "" TERM; echo up; while :; do sleep 0.1; done`)
	d.Eventually("the program is ready", func() error {
		if out := d.Cleat("logs", "c"); out != "up" {
			return fmt.Errorf("log: %q", out)
		}
		return nil
	})
	d.Cleat("stop", "--time", "0", "c")
	if code := d.Cleat("wait", "c"); code != "137" {
		t.Errorf("wait: %q", code)
	}
	d.Cleat("rm", "c")
}

// TestRemove_TaskWithoutRecord requires --force, because the container's record is missing.
func TestRemove_TaskWithoutRecord(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	ctx, conn := fixture.GRPC(d)
	_, err := containersapi.NewContainersClient(conn).Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
	harness.Must(t, err)
	if _, stderr, code := d.Try("rm", "c"); code != 1 || !strings.Contains(stderr, "not found") {
		t.Errorf("rm without force: code %d, %s", code, stderr)
	}
	d.Cleat("rm", "--force", "c")
	if _, stderr, code := d.Try("rm", "--force", "c"); code != 1 || !strings.Contains(stderr, "not found") {
		t.Errorf("second rm: code %d, %s", code, stderr)
	}
	d.Cleat("gc") // the snapshot is not referenced any more
	d.Cleat("run", "--rm", "--name", "c", "busybox", "true")
}

// The log file of a run is shown like the daemon's own, also with a terminal.
func TestLogs_NamedFile(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for name, flags := range map[string][]string{"plain": nil, "terminal": {"--tty"}} {
		path := filepath.Join(t.TempDir(), "a%20log")
		d.Cleat(append(append([]string{"run", "-d", "--name", name, "--log", "file://" + path}, flags...), "busybox", "echo", "kept")...)
		d.Cleat("wait", name)
		d.Logs(name, "kept")
		d.Cleat("rm", name)
	}
	if _, stderr, code := d.Try("run", "-d", "--tty", "--log", "daemon", "busybox", "true"); code != 125 || !strings.Contains(stderr, "log of a terminal") {
		t.Errorf("the daemon's log of a terminal: code %d, %s", code, stderr)
	}
}

// When the reader of a followed log leaves, the command exits silently, and the container keeps running.
func TestLogsFollow_ReaderLeaves_Ends(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", "while :; do echo line; sleep 0.1; done")
	r, w, err := os.Pipe()
	harness.Must(t, err)
	var stderr strings.Builder
	cmd := d.Command("logs", "--follow", "c")
	cmd.Stdout, cmd.Stderr = w, &stderr
	harness.Must(t, cmd.Start())
	harness.Must(t, w.Close())
	_, err = r.Read(make([]byte, 1))
	harness.Must(t, errors.Join(err, r.Close()))
	if code := harness.ExitCode(t, cmd.Wait()); code != 128+int(syscall.SIGPIPE) || stderr.String() != "" {
		t.Errorf("code %d, %q", code, stderr.String())
	}
	d.Cleat("rm", "--force", "c")
}

// TestOutOfMemory_IsShown distinguishes a container killed for its memory from one that exited with the same code.
func TestOutOfMemory_IsShown(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	const eat = "dd if=/dev/zero of=/dev/null bs=64M count=1"
	d.Cleat(append([]string{"run", "-d", "--name", "killed", "--memory", "16m", "busybox"}, strings.Fields(eat)...)...)
	d.Cleat("run", "-d", "--name", "other", "--memory", "16m", "busybox", "sh", "-c", "exit 137")
	// One of its processes is killed, and the container keeps running.
	d.Cleat("run", "-d", "--name", "lives", "--memory", "16m", "busybox", "sh", "-c", eat+"; echo over; sleep 1000")
	for _, id := range []string{"killed", "other"} {
		if code := d.Cleat("wait", id); code != "137" {
			t.Errorf("wait %s: %s", id, code)
		}
	}
	check := func() error {
		var list []struct {
			ID, Status string
			OOMKilled  bool `json:"oom_killed"`
		}
		if err := json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list); err != nil {
			return err
		}
		got := make(map[string]string)
		for _, c := range list {
			got[c.ID] = fmt.Sprint(c.Status, " ", c.OOMKilled)
		}
		if want := (map[string]string{"killed": "stopped true", "other": "stopped false", "lives": "running true"}); !maps.Equal(got, want) {
			return fmt.Errorf("ps shows %v, want %v", got, want)
		}
		return nil
	}
	d.Eventually("OOM is shown", check)
	if ps := d.Cleat("ps", "--all"); strings.Count(ps, "exited (137, out of memory)") != 1 || strings.Count(ps, "exited (137)") != 1 {
		t.Errorf("ps shows:\n%s", ps)
	}
	d.Restart()
	d.Eventually("OOM is shown after a restart", check)
}

// TestRemoveForce_PausedContainer ends the shim in the regular way although runc's kill thaws the container.
func TestRemoveForce_PausedContainer(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	d.Cleat("pause", "c")
	d.Cleat("rm", "--force", "c")
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, "shim did not delete") && !strings.Contains(line, "deadline exceeded") { // on an overloaded machine
			t.Errorf("the shim was killed: %s", line)
		}
	}
}
