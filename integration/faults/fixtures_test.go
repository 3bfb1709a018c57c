package faults

import (
	"errors"
	"fmt"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// quickRun starts a container through the Go client, its output in the daemon's log.
func quickRun(d *harness.Daemon, c *client.Client, id string, args ...string) client.Started {
	d.T.Helper()
	s, err := c.Run(d.T.Context(), client.RunRequest{ID: id, Image: "busybox", Spec: fixture.BusyboxSpec(d.T, args...), Log: true})
	if err != nil {
		d.T.Fatalf("%v\n%s", err, d.Log())
	}
	return s
}

// consistent returns an error unless the live shims are exactly those of the running containers in ps, each with its
// process.
func consistent(d *harness.Daemon) error {
	var errs error
	running := 0
	known := d.Shims()
	for id, c := range d.All() {
		switch c.Status {
		case "running", "created", "paused":
			running++
			if !harness.Alive(c.Pid) {
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
	if live := d.ShimProcesses(); len(live) != running || len(known) != running {
		errs = errors.Join(errs, fmt.Errorf("%d containers run, %d shims live (%v), %d are known (%v)", running, len(live), live, len(known), known))
	}
	return errs
}
