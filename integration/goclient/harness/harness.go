// Package harness starts a cleatd, a registry and a test image for tests that are separate modules because they import
// a peer's client. It uses the standard library only, so that it adds no requirement to the versions that these modules
// pin. Everything that it starts ends with the test that started it.
package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limit is how long anything may take that should be quick: a deadline for hangs, not a measure.
const Limit = 60 * time.Second

// binariesVar names the directory of the binaries under test.
const binariesVar = "CLEAT_BINARIES"

// Daemon is a cleatd with its own directories.
type Daemon struct {
	t       *testing.T
	Root    string
	State   string
	Address string
	log     string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// Start starts a daemon from the binaries in the directory $CLEAT_BINARIES. It is stopped at the end of the test.
func Start(t *testing.T) *Daemon {
	t.Helper()
	if os.Getenv(binariesVar) == "" {
		t.Fatalf("%s is not set: run these tests with integration/goclient/test.sh", binariesVar)
	}
	base, err := os.MkdirTemp("", "cleat-goclient")
	Must(t, err)
	d := &Daemon{
		t: t, Root: filepath.Join(base, "root"), State: filepath.Join(base, "state"),
		Address: filepath.Join(base, "state", "cleat.sock"), log: filepath.Join(base, "cleatd.log"),
	}
	t.Cleanup(func() {
		d.removeContainers()
		d.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("cleatd's log:\n%s", d.Log())
		}
		Must(t, os.RemoveAll(base))
	})
	d.begin()
	return d
}

func (d *Daemon) begin() {
	d.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	Must(d.t, err)
	defer log.Close()
	bin := filepath.Join(os.Getenv(binariesVar), "cleatd")
	d.cmd = exec.Command(bin, "--root", d.Root, "--state", d.State, "--address", d.Address)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	Must(d.t, d.cmd.Start())
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // each test checks how it ended
		close(exited)
	}(d.cmd, d.exited)
	Eventually(d.t, "the daemon answers", func() error {
		select {
		case <-d.exited:
			d.t.Fatalf("cleatd ended:\n%s", d.Log())
		default:
		}
		c, err := net.Dial("unix", d.Address)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// Restart kills the daemon's process with SIGKILL and starts it again.
func (d *Daemon) Restart() {
	d.t.Helper()
	d.end(syscall.SIGKILL)
	d.begin()
}

func (d *Daemon) end(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Error(err)
	}
	select {
	case <-d.exited:
	case <-time.After(Limit):
		d.t.Fatalf("cleatd does not end on %s:\n%s", sig, d.Log())
	}
}

// removeContainers removes the containers that tests left, and checks that no shim and no mount is left.
func (d *Daemon) removeContainers() {
	d.t.Helper()
	for _, ns := range strings.Fields(d.Cleat("namespace", "ls")) {
		for _, id := range strings.Fields(d.Cleat("--namespace", ns, "ps", "--all", "--quiet")) {
			d.Cleat("--namespace", ns, "rm", "--force", id)
		}
	}
	Eventually(d.t, "nothing is left of the containers", func() error {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, d.State) || strings.Contains(line, d.Root) {
				return fmt.Errorf("still mounted: %s", line)
			}
		}
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err
		}
		for _, p := range lines {
			cmd, err := os.ReadFile(p)
			if err == nil && strings.Contains(string(cmd), "containerd-shim-") && strings.Contains(string(cmd), d.State) {
				return fmt.Errorf("still running: %q", cmd)
			}
		}
		return nil
	})
}

// Cleat runs the CLI, which must succeed, and returns its output.
func (d *Daemon) Cleat(args ...string) string {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv(binariesVar), "cleat"), args...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		d.t.Fatalf("cleat %q: %v: %s", args, err, exit.Stderr)
	}
	Must(d.t, err)
	return strings.TrimSpace(string(out))
}

// Log returns the log of the daemon.
func (d *Daemon) Log() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Registry starts Debian's docker-registry on loopback and returns its host and port.
func Registry(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cleat-registry") // short, for the socket; another program may take a free port
	Must(t, err)
	t.Cleanup(func() { Must(t, os.RemoveAll(dir)) })
	socket := filepath.Join(dir, "s")
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  net: unix\n  addr: %s\n",
		filepath.Join(dir, "data"), socket)
	path := filepath.Join(dir, "config.yml")
	Must(t, os.WriteFile(path, []byte(config), 0o600))
	cmd := exec.Command("docker-registry", "serve", path)
	Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "registry"})
			p.Out.Host = p.In.Host
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		}},
	})
	t.Cleanup(front.Close)
	Eventually(t, "the registry answers", func() error {
		resp, err := http.Get(front.URL + "/v2/")
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return errors.Join(err, resp.Body.Close())
	})
	return front.Listener.Addr().String()
}

// Eventually calls f until it returns nil, and fails the test if that takes longer than Limit.
func Eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.After(Limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s: %v", what, Limit, err)
		case <-tick.C:
		}
	}
}

// Must fails the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
