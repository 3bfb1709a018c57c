package integration

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

	"github.com/cleatproject/cleat/client"
	"github.com/containerd/errdefs"
)

// runSpan is roughly the time from the start of the CLI to the running container.
const runSpan = 160 * time.Millisecond

// moments is the number of moments at which a run is interrupted.
func moments() int { return size(16, 100) }

// ended signals a command of the CLI repeatedly until it has ended, as an impatient user does.
func (d *Daemon) ended(cmd *exec.Cmd, sig syscall.Signal) error {
	d.t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	again := time.NewTicker(300 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(limit)
	for {
		if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			d.t.Fatal(err)
		}
		select {
		case err := <-done:
			return err
		case <-again.C:
		case <-deadline:
			d.t.Fatalf("the CLI does not exit on %s\n%s", sig, d.Log())
		}
	}
}

// mortal is a command that ends on the signals that CLIs forward.
var mortal = []string{"busybox", "sh", "-c", `trap "exit 7" TERM INT; while :; do sleep 0.05; done`}

func TestRun_InterruptedAtAnyMoment(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			d := Start(t)
			d.Busybox()
			sweep(t, moments(), runSpan, func(i int, delay time.Duration) (began bool) {
				args := append([]string{"run", "--rm"}, mortal...)
				if i%2 == 1 {
					args = append([]string{"run", "--name", fmt.Sprintf("c%d", i)}, mortal...)
				}
				cmd := d.Command(args...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				must(t, cmd.Start())
				pause(delay)
				err := d.ended(cmd, sig)
				if exit := new(exec.ExitError); !errors.As(err, &exit) {
					t.Fatalf("after %s: %v, %s", delay, err, stderr.String())
				}
				d.Eventually("only the running container is left", func() error {
					for id, c := range d.all() {
						if i%2 == 0 {
							return fmt.Errorf("%s is present, %s", id, c.Status)
						}
						if c.Status != "stopped" {
							return fmt.Errorf("%s is %s", id, c.Status)
						}
					}
					return d.consistent()
				})
				for id := range d.all() {
					began = true
					d.Cleat("rm", id)
				}
				d.Eventually("nothing is left", d.leaks)
				return began
			})
		})
	}
}

func TestRun_CLIKilledAtAnyMoment(t *testing.T) {
	d := Start(t)
	d.Busybox()
	sweep(t, moments(), runSpan, func(i int, delay time.Duration) (began bool) {
		args := append([]string{"run"}, mortal...)
		if i%2 == 0 {
			args = append([]string{"run", "--rm"}, mortal...)
		}
		cmd := d.Command(args...)
		must(t, cmd.Start())
		pause(delay)
		_ = d.ended(cmd, syscall.SIGKILL) // it was killed
		// A run without a response is undone; an answered one continues.
		d.Eventually("containers are complete or absent", d.consistent)
		for id, c := range d.all() {
			began = true
			if c.Status != "running" {
				t.Errorf("after %s: %s is %s", delay, id, c.Status)
			}
			if i%2 == 1 {
				d.Cleat("rm", "--force", id)
				continue
			}
			// Its client is dead: only the daemon can remove it.
			d.Cleat("kill", "-s", "KILL", id)
			d.Eventually("a container of run --rm is removed", func() error {
				if list := d.all(); len(list) != 0 {
					return fmt.Errorf("%v", list)
				}
				return nil
			})
		}
		d.Cleat("run", "--rm", "busybox", "true") // collects the FIFOs of dead clients
		d.Eventually("nothing is left", d.leaks)
		return began
	})
}

func TestRun_ContextEndsAtAnyMoment(t *testing.T) {
	d := Start(t)
	d.Busybox()
	c := d.Client()
	sweep(t, moments(), runSpan/2, func(i int, delay time.Duration) (began bool) {
		id := fmt.Sprintf("c%d", i)
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		_, err := c.Run(ctx, client.RunRequest{ID: id, Image: "busybox", Spec: busyboxSpec(t, "sleep", "1000"), Log: true})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %s: %v", delay, err)
		}
		d.Eventually("containers are complete or absent", d.consistent)
		_, there := d.all()[id]
		switch {
		case err == nil && !there:
			t.Errorf("after %s: run succeeded without a container", delay)
		case err != nil && there:
			t.Errorf("after %s: run failed with a container left: %v", delay, err)
		}
		if there {
			d.Cleat("rm", "--force", id)
		}
		d.Eventually("nothing is left", d.leaks)
		return err == nil
	})
}

func TestRun_Cancelled_KeepsContainerOfSameName(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	c := d.Client()
	sweep(t, moments(), runSpan/16, func(_ int, delay time.Duration) (refused bool) {
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		_, err := c.Run(ctx, client.RunRequest{ID: "c", Image: "busybox", Spec: busyboxSpec(t, "sleep", "1000")})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) && !errdefs.IsAlreadyExists(err) {
			t.Errorf("after %s: %v", delay, err)
		}
		return errdefs.IsAlreadyExists(err)
	})
	if out := d.Cleat("exec", "c", "echo", "well"); out != "well" {
		t.Errorf("exec: %q", out)
	}
}

func TestExec_CLIKilled_ContainerKeepsRunning(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	c := d.Client()
	running := 1
	sweep(t, moments(), runSpan, func(_ int, delay time.Duration) (began bool) {
		cmd := d.Command("exec", "-i", "c", "cat")
		_, err := cmd.StdinPipe() // open until Wait
		must(t, err)
		must(t, cmd.Start())
		pause(delay)
		_ = d.ended(cmd, syscall.SIGKILL) // it was killed
		// A process that has started keeps running, as a container does.
		pids, err := c.Pids(t.Context(), "c")
		must(t, err)
		began = len(pids) > running
		running = len(pids)
		return began
	})
	if out := d.Cleat("exec", "c", "echo", "well"); out != "well" {
		t.Errorf("exec: %q", out)
	}
	d.Cleat("rm", "--force", "c")
	d.Cleat("run", "--rm", "busybox", "true") // collects the FIFOs of dead clients
	d.nothingMade("a killed exec")
}

func TestImport_Interrupted_LeavesNothing(t *testing.T) {
	d := Start(t)
	data, err := os.ReadFile(busyboxArchive(t))
	must(t, err)
	for _, part := range []int{0, 1000, len(data) / 2, len(data) - 1} {
		cmd := d.Command("image", "import", "--name", "cut", "-")
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = in.Write(data[:part])
		must(t, err)
		pause(20 * time.Millisecond)
		_ = d.ended(cmd, syscall.SIGKILL) // it was killed
		d.nothingMade("a killed import")
		for _, dir := range []string{"content/blobs/sha256", "snapshots/overlayfs"} {
			d.Eventually("nothing is left", func() error { return empty(d.Root+"/"+dir, 1) })
		}
	}
	c := d.Client()
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
	must(t, r.Close())
	d.Eventually("nothing is left", func() error { return empty(d.Root+"/content/blobs/sha256", 1) })
	d.nothingMade("a cancelled import")
}
