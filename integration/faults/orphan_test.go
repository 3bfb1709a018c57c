package faults

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// counting is a command that logs numbers as fast as it can until /go/now exists, logs the last number, and exits
// with its own code.
const counting = "i=0; until [ -e /go/now ]; do i=$((i+1)); echo $i; done; echo end $i; exit 19"

// counted returns an error unless the log of a container that counted is complete.
func counted(log string) error {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	last := len(lines) - 1
	for i, line := range lines[:last] {
		if line != fmt.Sprint(i+1) {
			return fmt.Errorf("line %d is %q", i+1, line)
		}
	}
	if want := fmt.Sprintf("end %d", last); lines[last] != want {
		return fmt.Errorf("the last line is %q, want %q", lines[last], want)
	}
	return nil
}

// orphaned starts a container that counts; the returned function ends it.
func orphaned(d *harness.Daemon, id string) (end func()) {
	d.T.Helper()
	dir := filepath.Join(d.T.TempDir(), "go")
	harness.Must(d.T, os.Mkdir(dir, 0o755))
	d.Cleat("run", "-d", "--name", id, "-v", dir+":/go", "busybox", "sh", "-c", counting)
	return func() { harness.Must(d.T, os.WriteFile(filepath.Join(dir, "now"), nil, 0o644)) }
}

// anotherShim waits until the container has a new shim.
func anotherShim(d *harness.Daemon, id string, old int) int {
	d.T.Helper()
	pid := 0
	d.Eventually("a new shim has the container", func() error {
		s, ok := d.Shims()[id]
		if pid = s.Pid; !ok || pid == old || !harness.Alive(pid) {
			return fmt.Errorf("shim: %+v", s)
		}
		if c := d.Ps(id); c.Status != "running" {
			return fmt.Errorf("status %s", c.Status)
		}
		return nil
	})
	return pid
}

func TestShimKilled_DuringOutput_LosesNothing(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"shim": false, "shim and daemon": true} {
		t.Run(name, func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			end := orphaned(d, "c")
			cursor := fixture.LastCursor(d)
			before, shim := d.Ps("c"), d.Shims()["c"].Pid
			for range 3 {
				if restart {
					harness.Must(t, unix.Kill(shim, unix.SIGKILL))
					d.Kill9()
					d.Begin()
				} else {
					harness.KillPid(t, shim)
				}
				shim = anotherShim(d, "c", shim)
				if after := d.Ps("c"); after.Pid != before.Pid {
					t.Fatalf("pid %d became %d", before.Pid, after.Pid)
				}
				if _, _, code := d.Try("exec", "c", "sh", "-c", "exit 44"); code != 44 {
					t.Errorf("exec: code %d", code)
				}
			}
			end()
			if c := d.Status("c", "stopped"); c.ExitCode != 19 {
				t.Errorf("exit code %d", c.ExitCode)
			}
			if code := d.Cleat("wait", "c"); code != "19" {
				t.Errorf("wait prints %s", code)
			}
			d.Eventually("the log is complete", func() error { return counted(d.Cleat("logs", "c")) })
			if exits := publishedExits(d, cursor, 1); !slices.Equal(exits["c"], []uint32{19}) {
				t.Errorf("exit events: %v", exits)
			}
		})
	}
}

// A waiting client receives the exit although the shim was killed, and stop works.
func TestShimKilled_ClientWaits_ReceivesExit(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", harness.Trapping(33))
	d.Ready("c")
	wait := d.Command("wait", "c")
	out, err := wait.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, wait.Start())
	shim := d.Shims()["c"].Pid
	harness.KillPid(t, shim)
	anotherShim(d, "c", shim)
	d.Cleat("pause", "c")
	shim = d.Shims()["c"].Pid
	harness.KillPid(t, shim)
	d.Eventually("a new shim has the paused container", func() error {
		if s, c := d.Shims()["c"], d.Ps("c"); s.Pid == shim || c.Status != "paused" {
			return fmt.Errorf("shim %+v, container %+v", s, c)
		}
		return nil
	})
	d.Cleat("resume", "c")
	d.Cleat("stop", "c")
	if text, err := io.ReadAll(out); err != nil || string(text) != "33\n" {
		t.Errorf("wait prints %q, %v", text, err)
	}
	harness.Must(t, wait.Wait())
}

// A container that cannot be adopted ends with its shim. Its exit is published, and nothing is left. A handle with
// another start time represents all reasons for a shim to refuse.
func TestShimKilled_WithoutAdoption_EndsContainer(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(d *harness.Daemon, pid int){
		"refused": func(d *harness.Daemon, _ int) {
			path := filepath.Join(d.State, "io.containerd.runtime.v2.task/default/c/shim.json")
			data, err := os.ReadFile(path)
			harness.Must(d.T, err)
			other := regexp.MustCompile(`"start_time":[0-9]+`).ReplaceAll(data, []byte(`"start_time":1`))
			harness.Must(d.T, os.WriteFile(path, other, 0o600))
		},
		"container dies too": func(d *harness.Daemon, pid int) { harness.Must(d.T, unix.Kill(pid, unix.SIGKILL)) }, // its shim may exit then
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, daemon dies too %v", name, restart), func(t *testing.T) {
				d := harness.Start(t)
				d.Busybox()
				d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
				cursor := fixture.LastCursor(d)
				pid, shim := d.Ps("c").Pid, d.Shims()["c"].Pid
				if restart {
					d.Kill9()
				}
				spoil(d, pid)
				if err := unix.Kill(shim, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Fatal(err)
				}
				if restart {
					d.Begin()
				}
				if c := d.Status("c", "stopped"); c.ExitCode != 137 {
					t.Errorf("exit code %d", c.ExitCode)
				}
				harness.Eventually(t, "the container has ended", harness.Gone(pid), d.Log)
				if exits := publishedExits(d, cursor, 1); !slices.Equal(exits["c"], []uint32{137}) {
					t.Errorf("exit events: %v", exits)
				}
			})
		}
	}
}

// TestShimSocketRemoved_DaemonAway removes the socket of a live shim while the daemon is away: one whose container
// keeps running, and one whose container has ended.
func TestShimSocketRemoved_DaemonAway(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	end := orphaned(d, "runs")
	ctr := func(args ...string) string {
		t.Helper()
		out, stderr, err := d.Ctr(args...)
		if err != nil {
			t.Fatalf("ctr %q: %v\n%s", args, err, stderr)
		}
		return out
	}
	ctr("run", "-d", "--null-io", "docker.io/library/busybox:latest", "ended", "sh", "-c", "exit 5")
	d.Eventually("the container has ended", func() error {
		if out := ctr("task", "ls"); !regexp.MustCompile(`ended +\d+ +STOPPED`).MatchString(out) {
			return fmt.Errorf("tasks: %s", out)
		}
		return nil
	})
	shims := d.Shims()
	d.Kill9()
	for _, s := range shims {
		harness.Must(t, os.Remove(strings.TrimPrefix(s.Socket, "unix://")))
	}
	d.Begin()
	anotherShim(d, "runs", shims["runs"].Pid)
	end()
	if code := d.Cleat("wait", "runs"); code != "19" {
		t.Errorf("exit code %s", code)
	}
	d.Eventually("the log is complete", func() error { return counted(d.Cleat("logs", "runs")) })
	ctr("task", "rm", "ended")
	ctr("container", "rm", "ended")
	for id, s := range shims {
		d.Eventually("the shim of "+id+" has ended", harness.Gone(s.Pid))
	}
}
