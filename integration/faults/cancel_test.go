package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// mortal is a command that ends on the signals that CLIs forward.
var mortal = []string{"busybox", "sh", "-c", `trap "exit 7" TERM INT; while :; do sleep 0.05; done`}

// oneRuns returns an error unless a container runs.
func oneRuns(d *harness.Daemon) error {
	for _, c := range d.All() {
		if c.Status == "running" {
			return nil
		}
	}
	return errors.New("no container runs")
}

func TestRun_InterruptedAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			d := harness.Start(t)
			d.Busybox()
			d.Sweep(harness.Moments(), d.Watched(), func(i int, at *harness.Interruption) (began bool) {
				args := append([]string{"run", "--rm"}, mortal...)
				if i%2 == 0 {
					args = append([]string{"run", "--name", fmt.Sprintf("c%d", i)}, mortal...)
				}
				cmd := d.Command(args...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				at.Wait(func() { harness.Must(t, cmd.Start()) }, func() error { return oneRuns(d) }, harness.Signal(cmd, sig))
				err := d.Ended(cmd, sig)
				if exit := new(exec.ExitError); !errors.As(err, &exit) {
					t.Fatalf("%s: %v, %s", at, err, stderr.String())
				}
				d.Eventually("only the running container is left", func() error {
					for id, c := range d.All() {
						if i%2 == 1 {
							return fmt.Errorf("%s is present, %s", id, c.Status)
						}
						if c.Status != "stopped" {
							return fmt.Errorf("%s is %s", id, c.Status)
						}
					}
					return consistent(d)
				})
				for id := range d.All() {
					began = true
					d.Cleat("rm", id)
				}
				d.Eventually("nothing is left", d.Leaks)
				return began
			})
		})
	}
}

func TestRun_CLIKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Sweep(harness.Moments(), d.Watched(), func(i int, at *harness.Interruption) (began bool) {
		args := append([]string{"run"}, mortal...)
		if i%2 == 0 {
			args = append([]string{"run", "--rm"}, mortal...)
		}
		cmd := d.Command(args...)
		at.Wait(func() { harness.Must(t, cmd.Start()) }, func() error { return oneRuns(d) }, harness.Signal(cmd, syscall.SIGKILL))
		_ = d.Ended(cmd, syscall.SIGKILL) // it was killed
		// A run without a response is undone; an answered one continues.
		d.Eventually("containers are complete or absent", func() error { return consistent(d) })
		for id, c := range d.All() {
			began = true
			if c.Status != "running" {
				t.Errorf("%s: %s is %s", at, id, c.Status)
			}
			if i%2 == 1 {
				d.Cleat("rm", "--force", id)
				continue
			}
			// Its client is dead: only the daemon can remove it.
			d.Cleat("kill", "-s", "KILL", id)
			d.Eventually("a container of run --rm is removed", func() error {
				if list := d.All(); len(list) != 0 {
					return fmt.Errorf("%v", list)
				}
				return nil
			})
		}
		d.Cleat("run", "--rm", "busybox", "true") // collects the FIFOs of dead clients
		d.Eventually("nothing is left", d.Leaks)
		return began
	})
}

func TestRun_ContextEndsAtAnyMoment(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	d.Sweep(harness.Moments(), d.Watched(), func(i int, at *harness.Interruption) (began bool) {
		id := fmt.Sprintf("c%d", i)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		at.Wait(func() {
			go func() {
				_, err := c.Run(ctx, client.RunRequest{ID: id, Image: "busybox", Spec: fixture.BusyboxSpec(t, "sleep", "1000"), Log: true})
				ended <- err
			}()
		}, func() error {
			if len(ended) == 0 {
				return errors.New("run has not returned")
			}
			return nil
		}, cancel)
		cancel()
		err := <-ended
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", at, err)
		}
		d.Eventually("containers are complete or absent", func() error { return consistent(d) })
		_, there := d.All()[id]
		switch {
		case err == nil && !there:
			t.Errorf("%s: run succeeded without a container", at)
		case err != nil && there:
			t.Errorf("%s: run failed with a container left: %v", at, err)
		}
		if there {
			d.Cleat("rm", "--force", id)
		}
		d.Eventually("nothing is left", d.Leaks)
		return err == nil
	})
}

func TestRun_Cancelled_KeepsContainerOfSameName(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	c := fixture.Client(d)
	// The refusal leaves no change to watch: contexts end at times from before the request to after its response.
	refused := false
	for delay := time.Duration(0); !refused; delay += 500 * time.Microsecond {
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		_, err := c.Run(ctx, client.RunRequest{ID: "c", Image: "busybox", Spec: fixture.BusyboxSpec(t, "sleep", "1000")})
		cancel()
		if refused = errdefs.IsAlreadyExists(err); !refused && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after %s: %v", delay, err)
		}
	}
	if out := d.Cleat("exec", "c", "echo", "well"); out != "well" {
		t.Errorf("exec: %q", out)
	}
}

func TestExec_CLIKilled_ContainerKeepsRunning(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	c := fixture.Client(d)
	running := 1
	d.Sweep(harness.Moments(), []string{d.State}, func(_ int, at *harness.Interruption) (began bool) {
		cmd := d.Command("exec", "-i", "c", "cat")
		_, err := cmd.StdinPipe() // open until Wait
		harness.Must(t, err)
		at.Wait(func() { harness.Must(t, cmd.Start()) }, func() error {
			pids, err := c.Pids(t.Context(), "c")
			if err == nil && len(pids) == running {
				err = errors.New("the process has not started")
			}
			return err
		}, harness.Signal(cmd, syscall.SIGKILL))
		_ = d.Ended(cmd, syscall.SIGKILL) // it was killed
		// A process that has started keeps running, as a container does.
		pids, err := c.Pids(t.Context(), "c")
		harness.Must(t, err)
		began = len(pids) > running
		running = len(pids)
		return began
	})
	if out := d.Cleat("exec", "c", "echo", "well"); out != "well" {
		t.Errorf("exec: %q", out)
	}
	d.Cleat("rm", "--force", "c")
	d.Cleat("run", "--rm", "busybox", "true") // collects the FIFOs of dead clients
	d.NoRemains("a killed exec")
}

func TestImport_Interrupted_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	data, err := os.ReadFile(harness.BusyboxArchive(t))
	harness.Must(t, err)
	for _, part := range []int{0, 1000, len(data) / 2, len(data) - 1} {
		cmd := d.Command("image", "import", "--name", "cut", "-")
		in, err := cmd.StdinPipe()
		harness.Must(t, err)
		harness.Must(t, cmd.Start())
		_, err = in.Write(data[:part])
		harness.Must(t, err)
		d.Eventually("the client has read the part", func() error {
			unread, err := unix.IoctlGetInt(int(in.(*os.File).Fd()), unix.TIOCINQ)
			if err == nil && unread > 0 {
				err = fmt.Errorf("%d bytes are unread", unread)
			}
			return err
		})
		_ = d.Ended(cmd, syscall.SIGKILL) // it was killed
		d.NoRemains("a killed import")
		for _, dir := range []string{"content/blobs/sha256", "snapshots/overlayfs"} {
			d.Eventually("nothing is left", func() error { return harness.Empty(d.Root+"/"+dir, 1) })
		}
	}
	c := fixture.Client(d)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(data[:len(data)/2]) // the reader may have closed the pipe
		cancel()
		_ = w.CloseWithError(context.Canceled) // never fails; unblocks the reader
	}()
	if _, err := c.ImportImage(ctx, r, client.ImportOptions{Name: "cut"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled import: %v", err)
	}
	harness.Must(t, r.Close())
	d.Eventually("nothing is left", func() error { return harness.Empty(d.Root+"/content/blobs/sha256", 1) })
	d.NoRemains("a cancelled import")
}
