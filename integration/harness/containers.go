package harness

import (
	"encoding/json"
	"fmt"
)

// ShimShown is an object of `shim ls --format json`.
type ShimShown struct {
	ID      string `json:"id"`
	Pid     int    `json:"pid"`
	Version string `json:"version"`
	Socket  string `json:"socket"`
	State   string `json:"state"`
}

// Shims returns the daemon's shims by the id of their container.
func (d *Daemon) Shims() map[string]ShimShown {
	d.T.Helper()
	var list []ShimShown
	Must(d.T, json.Unmarshal([]byte(d.Cleat("shim", "ls", "--all-namespaces", "--format", "json")), &list))
	out := make(map[string]ShimShown)
	for _, s := range list {
		out[s.ID] = s
	}
	return out
}

// All returns every container that ps lists, by id.
func (d *Daemon) All() map[string]Shown {
	d.T.Helper()
	var list []Shown
	Must(d.T, json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list))
	out := make(map[string]Shown)
	for _, c := range list {
		out[c.ID] = c
	}
	return out
}

// Trapping is a program that exits with a code on SIGTERM once /ready exists. An earlier signal is lost, because an
// init ignores signals that it does not handle.
func Trapping(code int) string {
	return fmt.Sprintf(`trap "exit %d" TERM; touch /ready; while :; do sleep 0.1; done`, code)
}

// Ready waits until the program of a container has created /ready.
func (d *Daemon) Ready(id string) {
	d.T.Helper()
	d.Eventually(id+" is ready", func() error {
		if _, stderr, code := d.Try("exec", id, "test", "-e", "/ready"); code != 0 {
			return fmt.Errorf("code %d, %s", code, stderr)
		}
		return nil
	})
}

// Logs waits until the log of a container is as expected. Its program may write after its start was reported.
func (d *Daemon) Logs(id, want string) {
	d.T.Helper()
	d.Eventually("the log of "+id, func() error {
		if out := d.Cleat("logs", id); out != want {
			return fmt.Errorf("log %q, want %q", out, want)
		}
		return nil
	})
}

// Shown is an object of `ps --format json`.
type Shown struct {
	ID        string `json:"id"`
	Pid       int    `json:"pid"`
	Status    string `json:"status"`
	ExitCode  int    `json:"exit_code"`
	Finished  string `json:"finished"` // RFC 3339; empty while it runs
	OOMKilled bool   `json:"oom_killed"`
}

// Ps returns a container as listed by ps.
func (d *Daemon) Ps(id string) Shown {
	d.T.Helper()
	var list []Shown
	Must(d.T, json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list))
	for _, c := range list {
		if c.ID == id {
			return c
		}
	}
	d.T.Fatalf("ps does not show %s", id)
	return Shown{}
}

// Status waits until ps shows a status of the container.
func (d *Daemon) Status(id, want string) Shown {
	d.T.Helper()
	var c Shown
	d.Eventually(id+" is "+want, func() error {
		if c = d.Ps(id); c.Status != want {
			return fmt.Errorf("status %s", c.Status)
		}
		return nil
	})
	return c
}
