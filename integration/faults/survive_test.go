package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	apievents "github.com/cleatproject/cleat/proto/events"
)

func TestDaemonKilled_RunningContainer_Survives(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", harness.Trapping(33))
	d.Ready("c")
	before := d.Ps("c")
	for range 3 {
		d.Restart()
		if after := d.Status("c", "running"); after.Pid != before.Pid {
			t.Fatalf("pid %d became %d", before.Pid, after.Pid)
		}
	}
	d.Cleat("stop", "c")
	if c := d.Status("c", "stopped"); c.ExitCode != 33 {
		t.Fatalf("exit code %d", c.ExitCode)
	}
}

func TestDaemonKilled_DuringExec(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	cmd := d.Command("exec", "-i", "c", "sh", "-c", "echo ready; read x; echo got $x; exit 21")
	in, err := cmd.StdinPipe()
	harness.Must(t, err)
	out, err := cmd.StdoutPipe()
	harness.Must(t, err)
	cmd.Stderr = os.Stderr
	harness.Must(t, cmd.Start())
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	d.Restart()
	_, err = io.WriteString(in, "hello\n")
	harness.Must(t, err)
	rest, err := io.ReadAll(r)
	harness.Must(t, err)
	if string(rest) != "got hello\n" {
		t.Errorf("after the restart: %q", rest)
	}
	if code := harness.ExitCode(t, cmd.Wait()); code != 21 {
		t.Errorf("code %d", code)
	}
}

func TestDaemonKilled_BurstOfOutput_LosesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	const lines = 300000
	cmd := d.Command("run", "--name", "c", "busybox", "sh", "-c", fmt.Sprintf("seq 1 %d; exit 12", lines))
	out, err := cmd.StdoutPipe()
	harness.Must(t, err)
	cmd.Stderr = os.Stderr
	harness.Must(t, cmd.Start())
	r := bufio.NewScanner(out)
	n := 0
	for r.Scan() {
		if n++; r.Text() != strconv.Itoa(n) {
			t.Fatalf("line %d is %q", n, r.Text())
		}
		if n == 10 || n == lines/2 {
			d.Restart() // nothing is read until the daemon has restarted
		}
	}
	harness.Must(t, r.Err())
	if n != lines {
		t.Errorf("%d of %d lines arrived", n, lines)
	}
	if code := harness.ExitCode(t, cmd.Wait()); code != 12 {
		t.Errorf("code %d", code)
	}
	if c := d.Status("c", "stopped"); c.ExitCode != 12 {
		t.Errorf("recorded code %d", c.ExitCode)
	}
}

const (
	bundleState = "cleat-state.json" // in a bundle
	committed   = `"committed":true,`
)

func TestExit_DaemonDown_IsPublishedOnce(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	gate := filepath.Join(t.TempDir(), "go")
	harness.Must(t, os.Mkdir(gate, 0o755))
	d.Cleat("run", "-d", "--name", "c", "-v", gate+":/go", "busybox", "sh", "-c", "until [ -e /go/now ]; do sleep 0.02; done; exit 17")
	cursor := cursor(d, c)
	d.Kill9()
	before := time.Now()
	harness.Must(t, os.WriteFile(filepath.Join(gate, "now"), nil, 0o644))
	record := filepath.Join(d.State, "io.containerd.runtime.v2.task/default/c/exit.json")
	harness.Eventually(t, "the shim records the exit", func() error {
		_, err := os.Stat(record)
		return err
	}, d.Log)
	after := time.Now()
	d.Begin()
	got := d.Status("c", "stopped")
	finished, err := time.Parse(time.RFC3339Nano, got.Finished)
	harness.Must(t, err)
	if got.ExitCode != 17 || finished.Before(before.Add(-time.Second)) || finished.After(after.Add(time.Second)) {
		t.Errorf("exit code %d at %s, want 17 between %s and %s", got.ExitCode, got.Finished, before, after)
	}
	if code := d.Cleat("wait", "c"); code != "17" {
		t.Errorf("wait prints %s", code)
	}
	if exits := exits(d, c, cursor); len(exits) != 1 || exits["c"] != 17 {
		t.Errorf("exit events: %v", exits)
	}
}

// cursor returns a cursor of the event log that precedes later events.
func cursor(d *harness.Daemon, c *client.Client) uint64 {
	d.T.Helper()
	last := uint64(0)
	fixture.EachEvent(d, c, client.EventsRequest{FromStart: true}, func(e client.Event) bool {
		last = e.Cursor
		return e.Topic != "/tasks/start"
	})
	return last
}

// exits collects the exits of inits after a cursor, up to the present end of the log.
func exits(d *harness.Daemon, c *client.Client, cursor uint64) map[string]uint32 {
	d.T.Helper()
	found := make(map[string]uint32)
	fixture.EachEvent(d, c, client.EventsRequest{Cursor: cursor}, func(e client.Event) bool {
		if e.Topic == "/tasks/exit" {
			var ev apievents.TaskExit
			harness.Must(d.T, ev.Unmarshal(e.Value))
			if _, twice := found[ev.ContainerId]; twice {
				d.T.Errorf("the exit of %s was published twice", ev.ContainerId)
			}
			found[ev.ContainerId] = ev.ExitStatus
		}
		return e.Topic != "/tasks/delete"
	})
	return found
}

func TestTwoDaemons_AreIndependent(t *testing.T) {
	t.Parallel()
	a, b := harness.Start(t), harness.Start(t)
	for i, d := range []*harness.Daemon{a, b} {
		d.Busybox()
		d.Cleat("run", "-d", "--name", "same", "busybox", "sh", "-c", harness.Trapping(50+i))
		d.Ready("same")
	}
	pid := b.Ps("same").Pid
	a.Cleat("stop", "same")
	if c := a.Status("same", "stopped"); c.ExitCode != 50 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	a.Cleat("rm", "same")
	a.Restart()
	if ids := a.Cleat("ps", "--all", "--quiet"); ids != "" {
		t.Errorf("the first daemon shows %q", ids)
	}
	if c := b.Status("same", "running"); c.Pid != pid {
		t.Errorf("pid %d of the other daemon's container became %d", pid, c.Pid)
	}
	if out := b.Cleat("exec", "same", "echo", "here"); out != "here" {
		t.Errorf("exec: %q", out)
	}
	b.Cleat("stop", "same")
	if c := b.Status("same", "stopped"); c.ExitCode != 51 {
		t.Errorf("exit code %d", c.ExitCode)
	}
}

// TestDaemonKilled_BeforeRunIsCommitted reproduces a daemon that died when the container was recorded and its bundle
// was still marked as incomplete.
func TestDaemonKilled_BeforeRunIsCommitted(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	before := d.Ps("c")
	d.Kill9()
	path := filepath.Join(d.State, "io.containerd.runtime.v2.task/default/c", bundleState)
	data, err := os.ReadFile(path)
	harness.Must(t, err)
	if !bytes.Contains(data, []byte(committed)) {
		t.Fatalf("state %s", data)
	}
	harness.Must(t, os.WriteFile(path, bytes.Replace(data, []byte(committed), bytes.Repeat([]byte(" "), len(committed)), 1), 0o600))
	d.Begin()
	if c := d.Status("c", "running"); c.Pid != before.Pid {
		t.Errorf("pid %d became %d", before.Pid, c.Pid)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Contains(data, []byte(committed)) {
		t.Errorf("state is %s, %v", data, err)
	}
}
