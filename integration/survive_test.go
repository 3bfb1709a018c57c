package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	apievents "github.com/cleatproject/cleat/proto/events"

	"github.com/cleatproject/cleat/client"
)

// shown is an object of `ps --format json`.
type shown struct {
	ID        string `json:"id"`
	Pid       int    `json:"pid"`
	Status    string `json:"status"`
	ExitCode  int    `json:"exit_code"`
	Finished  string `json:"finished"` // RFC 3339; empty while it runs
	OOMKilled bool   `json:"oom_killed"`
}

// ps returns a container as listed by ps.
func (d *Daemon) ps(id string) shown {
	d.t.Helper()
	var list []shown
	must(d.t, json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list))
	for _, c := range list {
		if c.ID == id {
			return c
		}
	}
	d.t.Fatalf("ps does not show %s", id)
	return shown{}
}

// status waits until ps shows a status of the container.
func (d *Daemon) status(id, want string) shown {
	d.t.Helper()
	var c shown
	d.Eventually(id+" is "+want, func() error {
		if c = d.ps(id); c.Status != want {
			return fmt.Errorf("status %s", c.Status)
		}
		return nil
	})
	return c
}

func TestDaemonKilled_RunningContainer_Survives(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", trapping(33))
	d.ready("c")
	before := d.ps("c")
	for range 3 {
		d.Restart()
		if after := d.status("c", "running"); after.Pid != before.Pid {
			t.Fatalf("pid %d became %d", before.Pid, after.Pid)
		}
	}
	d.Cleat("stop", "c")
	if c := d.status("c", "stopped"); c.ExitCode != 33 {
		t.Fatalf("exit code %d", c.ExitCode)
	}
}

func TestDaemonKilled_DuringExec(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	cmd := d.Command("exec", "-i", "c", "sh", "-c", "echo ready; read x; echo got $x; exit 21")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	d.Restart()
	_, err = io.WriteString(in, "hello\n")
	must(t, err)
	rest, err := io.ReadAll(r)
	must(t, err)
	if string(rest) != "got hello\n" {
		t.Errorf("after the restart: %q", rest)
	}
	if code := exitCode(t, cmd.Wait()); code != 21 {
		t.Errorf("code %d", code)
	}
}

func TestDaemonKilled_BurstOfOutput_LosesNothing(t *testing.T) {
	d := Start(t)
	d.Busybox()
	const lines = 300000
	cmd := d.Command("run", "--name", "c", "busybox", "sh", "-c", fmt.Sprintf("seq 1 %d; exit 12", lines))
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
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
	must(t, r.Err())
	if n != lines {
		t.Errorf("%d of %d lines arrived", n, lines)
	}
	if code := exitCode(t, cmd.Wait()); code != 12 {
		t.Errorf("code %d", code)
	}
	if c := d.status("c", "stopped"); c.ExitCode != 12 {
		t.Errorf("recorded code %d", c.ExitCode)
	}
}

const (
	bundleState = "cleat-state.json" // in a bundle
	committed   = `"committed":true,`
)

// TestDaemonKilled_DuringCreate kills the daemon at many moments of a run. After each restart the container is either
// complete or absent.
func TestDaemonKilled_DuringCreate(t *testing.T) {
	d := Start(t)
	d.Busybox()
	sweep(t, 12, 96*time.Millisecond, func(i int, delay time.Duration) (ran bool) {
		name := fmt.Sprintf("c%d", i)
		cmd := d.Command("run", "-d", "--name", name, "busybox", "sleep", "1000")
		must(t, cmd.Start())
		pause(delay)
		d.Restart()
		ran = cmd.Wait() == nil
		d.Eventually("the bundle is committed or removed", func() error {
			states, err := filepath.Glob(filepath.Join(d.State, "io.containerd.runtime.v2.task/*/*", bundleState))
			must(t, err)
			for _, path := range states {
				if data, err := os.ReadFile(path); err == nil && !bytes.Contains(data, []byte(committed)) {
					return fmt.Errorf("%s: %s", path, data)
				}
			}
			return nil
		})
		ids := strings.Fields(d.Cleat("ps", "--all", "--quiet"))
		switch {
		case ran && len(ids) != 1:
			t.Fatalf("round %d: run succeeded, ps shows %q", i, ids)
		case len(ids) == 1:
			d.status(name, "running")
			d.Cleat("rm", "--force", name)
		}
		d.Eventually("shims equal live tasks", d.leaks)
		return ran
	})
}

// TestDaemonKilled_DuringDelete does the same for removal, which must be repeatable afterwards.
func TestDaemonKilled_DuringDelete(t *testing.T) {
	d := Start(t)
	d.Busybox()
	sweep(t, 12, 60*time.Millisecond, func(i int, delay time.Duration) (removed bool) {
		name := fmt.Sprintf("c%d", i)
		d.Cleat("run", "-d", "--name", name, "busybox", "sleep", "1000")
		cmd := d.Command("rm", "--force", name)
		must(t, cmd.Start())
		pause(delay)
		d.Restart()
		removed = cmd.Wait() == nil
		if _, stderr, code := d.Try("rm", "--force", name); code != 0 && !strings.Contains(stderr, "not found") {
			t.Fatalf("round %d: second removal: %s", i, stderr)
		}
		d.Eventually("nothing is left", d.leaks)
		return removed
	})
}

func TestExit_DaemonDown_IsPublishedOnce(t *testing.T) {
	d := Start(t)
	d.Busybox()
	c := d.Client()
	gate := filepath.Join(t.TempDir(), "go")
	must(t, os.Mkdir(gate, 0o755))
	d.Cleat("run", "-d", "--name", "c", "-v", gate+":/go", "busybox", "sh", "-c", "until [ -e /go/now ]; do sleep 0.02; done; exit 17")
	cursor := d.cursor(c)
	d.Kill9()
	before := time.Now()
	must(t, os.WriteFile(filepath.Join(gate, "now"), nil, 0o644))
	record := filepath.Join(d.State, "io.containerd.runtime.v2.task/default/c/exit.json")
	eventually(t, "the shim records the exit", func() error {
		_, err := os.Stat(record)
		return err
	}, d.Log)
	after := time.Now()
	d.Begin()
	got := d.status("c", "stopped")
	finished, err := time.Parse(time.RFC3339Nano, got.Finished)
	must(t, err)
	if got.ExitCode != 17 || finished.Before(before.Add(-time.Second)) || finished.After(after.Add(time.Second)) {
		t.Errorf("exit code %d at %s, want 17 between %s and %s", got.ExitCode, got.Finished, before, after)
	}
	if code := d.Cleat("wait", "c"); code != "17" {
		t.Errorf("wait prints %s", code)
	}
	if exits := d.exits(c, cursor); len(exits) != 1 || exits["c"] != 17 {
		t.Errorf("exit events: %v", exits)
	}
}

// cursor returns a cursor of the event log that precedes later events.
func (d *Daemon) cursor(c *client.Client) uint64 {
	d.t.Helper()
	last := uint64(0)
	d.eachEvent(c, client.EventsRequest{FromStart: true}, func(e client.Event) bool {
		last = e.Cursor
		return e.Topic != "/tasks/start"
	})
	return last
}

// exits collects the exits of inits after a cursor, up to the present end of the log.
func (d *Daemon) exits(c *client.Client, cursor uint64) map[string]uint32 {
	d.t.Helper()
	found := make(map[string]uint32)
	d.eachEvent(c, client.EventsRequest{Cursor: cursor}, func(e client.Event) bool {
		if e.Topic == "/tasks/exit" {
			var ev apievents.TaskExit
			must(d.t, ev.Unmarshal(e.Value))
			if _, twice := found[ev.ContainerId]; twice {
				d.t.Errorf("the exit of %s was published twice", ev.ContainerId)
			}
			found[ev.ContainerId] = ev.ExitStatus
		}
		return e.Topic != "/tasks/delete"
	})
	return found
}

func TestTwoDaemons_AreIndependent(t *testing.T) {
	a, b := Start(t), Start(t)
	for i, d := range []*Daemon{a, b} {
		d.Busybox()
		d.Cleat("run", "-d", "--name", "same", "busybox", "sh", "-c", trapping(50+i))
		d.ready("same")
	}
	pid := b.ps("same").Pid
	a.Cleat("stop", "same")
	if c := a.status("same", "stopped"); c.ExitCode != 50 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	a.Cleat("rm", "same")
	a.Restart()
	if ids := a.Cleat("ps", "--all", "--quiet"); ids != "" {
		t.Errorf("the first daemon shows %q", ids)
	}
	if c := b.status("same", "running"); c.Pid != pid {
		t.Errorf("pid %d of the other daemon's container became %d", pid, c.Pid)
	}
	if out := b.Cleat("exec", "same", "echo", "here"); out != "here" {
		t.Errorf("exec: %q", out)
	}
	b.Cleat("stop", "same")
	if c := b.status("same", "stopped"); c.ExitCode != 51 {
		t.Errorf("exit code %d", c.ExitCode)
	}
}

// eachEvent reads events until f returns false.
func (d *Daemon) eachEvent(c *client.Client, req client.EventsRequest, f func(client.Event) bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	for e, err := range c.Events(ctx, req) {
		must(d.t, err)
		if !f(e) {
			return
		}
	}
	d.t.Fatal("the events ended")
}

// TestDaemonKilled_BeforeRunIsCommitted reproduces a daemon that died when the container was recorded and its bundle
// was still marked as incomplete.
func TestDaemonKilled_BeforeRunIsCommitted(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	before := d.ps("c")
	d.Kill9()
	path := filepath.Join(d.State, "io.containerd.runtime.v2.task/default/c", bundleState)
	data, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Contains(data, []byte(committed)) {
		t.Fatalf("state %s", data)
	}
	must(t, os.WriteFile(path, bytes.Replace(data, []byte(committed), bytes.Repeat([]byte(" "), len(committed)), 1), 0o600))
	d.Begin()
	if c := d.status("c", "running"); c.Pid != before.Pid {
		t.Errorf("pid %d became %d", before.Pid, c.Pid)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Contains(data, []byte(committed)) {
		t.Errorf("state is %s, %v", data, err)
	}
}
