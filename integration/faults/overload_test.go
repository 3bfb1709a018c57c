package faults

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// busyHost keeps every processor busy until the test ends.
func busyHost(t *testing.T) {
	t.Helper()
	for range runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		harness.Must(t, cmd.Start())
		t.Cleanup(func() {
			harness.Must(t, cmd.Process.Kill())
			_ = cmd.Wait() // it was killed
		})
	}
}

// crowd starts n containers and returns their ids.
func crowd(d *harness.Daemon, prefix string, n int, args ...string) []string {
	d.T.Helper()
	c := fixture.Client(d)
	ids := make([]string, n)
	harness.Parallel(n, func(i int) {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
		quickRun(d, c, ids[i], args...)
	})
	return ids
}

// byClients calls f for each id, from this number of clients in parallel.
func byClients(d *harness.Daemon, ids []string, clients int, what string, f func(ctx context.Context, c *client.Client, id string) error) {
	d.T.Helper()
	work := make(chan string, len(ids))
	for _, id := range ids {
		work <- id
	}
	close(work)
	var wg sync.WaitGroup
	for range clients {
		c := fixture.Client(d)
		wg.Go(func() {
			for id := range work {
				if err := f(d.T.Context(), c, id); err != nil {
					d.T.Errorf("%s %s: %v", what, id, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestOverload_ManyContainers removes, stops, kills and pauses many containers by one command and by many clients, on
// an idle and on a busy host: every request succeeds, and no shim is treated as stuck.
func TestOverload_ManyContainers(t *testing.T) {
	t.Parallel()
	n, clients := harness.Size(48, 1000), harness.Size(24, 100)
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%t", busy), func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			if busy {
				busyHost(t)
			}
			ids := crowd(d, "one", n, "sleep", "100000")
			one := func(command ...string) {
				t.Helper()
				// No deadline except the test's: a thousand containers take minutes on a busy host.
				if out, err := d.Command(append(command, ids...)...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", command[0], err, out)
				}
			}
			one("pause")
			one("resume")
			one("rm", "--force")
			ids = crowd(d, "stopped", n, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done")
			one("stop", "--time", "600")
			one("rm")
			ids = crowd(d, "killed", n, "sleep", "100000")
			one("kill")
			one("wait")
			one("rm")

			ids = crowd(d, "many", n, "sleep", "100000")
			byClients(d, ids, clients, "pause", func(ctx context.Context, c *client.Client, id string) error { return c.Pause(ctx, id) })
			byClients(d, ids, clients, "resume", func(ctx context.Context, c *client.Client, id string) error { return c.Resume(ctx, id) })
			byClients(d, ids[:n/2], clients, "kill", func(ctx context.Context, c *client.Client, id string) error {
				return c.Kill(ctx, id, client.KillRequest{Signal: unix.SIGKILL})
			})
			// Several clients remove each container in parallel: one succeeds.
			byClients(d, append(append([]string(nil), ids...), ids...), clients, "remove", func(ctx context.Context, c *client.Client, id string) error {
				if err := c.Remove(ctx, id, true); err != nil && !strings.Contains(err.Error(), "not found") {
					return err
				}
				return nil
			})
			withoutWarnings(d)
			d.Eventually("nothing is left", d.Leaks)
		})
	}
}

// TestOverload_ManyExecs starts many processes in a few containers in parallel.
func TestOverload_ManyExecs(t *testing.T) {
	t.Parallel()
	n := harness.Size(60, 500)
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%t", busy), func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			if busy {
				busyHost(t)
			}
			ids := crowd(d, "c", 4, "sleep", "100000")
			execs := make([]string, n)
			for i := range execs {
				execs[i] = fmt.Sprint(i)
			}
			byClients(d, execs, n, "exec", func(_ context.Context, _ *client.Client, exec string) error {
				out, stderr, code := d.Try("exec", ids[len(exec)%len(ids)], "echo", exec)
				if code != 0 || out != exec+"\n" {
					return fmt.Errorf("code %d, %q, %s", code, out, stderr)
				}
				return nil
			})
			for _, id := range ids {
				d.Cleat("rm", "--force", id)
			}
			withoutWarnings(d)
		})
	}
}

// withoutWarnings fails the test for every warning and error in the logs of the daemon and its shims, except those
// about attributes that this host does not permit to set.
func withoutWarnings(d *harness.Daemon) {
	d.T.Helper()
	for line := range strings.Lines(d.Log()) {
		if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !strings.Contains(line, "operation not permitted") {
			d.T.Error(line)
		}
	}
}
