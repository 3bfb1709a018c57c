package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Containerd is Debian's containerd 1.6 with its own directories.
type Containerd struct {
	t       *testing.T
	State   string
	Address string
	log     string
}

// StartContainerd starts a containerd, which is stopped at the end of the test. It collects garbage only on request,
// because ctr ingests without a lease.
func StartContainerd(t *testing.T) *Containerd {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-peer")
	Must(t, err)
	t.Cleanup(func() { Must(t, os.RemoveAll(base)) })
	c := &Containerd{t: t, State: filepath.Join(base, "state"), Address: filepath.Join(base, "c.sock"), log: filepath.Join(base, "log")}
	config := filepath.Join(base, "config.toml")
	Must(t, os.WriteFile(config, []byte(fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[plugins."io.containerd.gc.v1.scheduler"]
startup_delay = "1h"
mutation_threshold = 1000000
[grpc]
address = %q
[ttrpc]
address = %q
`, filepath.Join(base, "root"), c.State, c.Address, c.Address+".ttrpc")), 0o600))
	log, err := os.Create(c.log)
	Must(t, err)
	defer log.Close()
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	Must(t, cmd.Start())
	t.Cleanup(func() {
		Must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("containerd's log:\n%s", c.Text())
		}
		c.unmount()
	})
	Eventually(t, "containerd answers", func() error {
		_, stderr, code := c.Ctr("version")
		if code != 0 {
			return errors.New(stderr)
		}
		return nil
	}, c.Text)
	return c
}

// Text returns what containerd logged.
func (c *Containerd) Text() string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// unmount fails the test if mounts are left.
func (c *Containerd) unmount() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	Must(c.t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, c.State) {
			c.t.Errorf("mount is left: %s", line)
		}
	}
}

// Ctr runs its client against it.
func (c *Containerd) Ctr(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return Ctr(c.t, c.Address, args...)
}

// Ctr runs containerd's client against the daemon at an address.
func Ctr(t *testing.T, address string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", address}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	exit := new(exec.ExitError)
	switch {
	case ctx.Err() != nil:
		t.Fatalf("ctr %q hangs: %q, %q", args, out.String(), errs.String())
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

// CtrGated lets ctr run a program that ends at a gate, and opens the gate when ctr has shown all output of the
// program. ctr abandons FIFOs that it has not opened when it receives the exit, with their contents.
func CtrGated(t *testing.T, address string, open func(), out, errs string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", address}, args...)...)
	outPipe, err := cmd.StdoutPipe()
	Must(t, err)
	errPipe, err := cmd.StderrPipe()
	Must(t, err)
	Must(t, cmd.Start())
	gotOut, gotErr := make([]byte, len(out)), make([]byte, len(errs))
	_, err = io.ReadFull(outPipe, gotOut)
	_, err2 := io.ReadFull(errPipe, gotErr)
	open()
	restOut, err3 := io.ReadAll(outPipe)
	restErr, err4 := io.ReadAll(errPipe)
	stdout, stderr = string(gotOut)+string(restOut), string(gotErr)+string(restErr)
	if err := errors.Join(err, err2, err3, err4, ctx.Err()); err != nil {
		t.Fatalf("ctr %q: %v: %q, %q", args, err, stdout, stderr)
	}
	return stdout, stderr, ExitCode(t, cmd.Wait())
}
