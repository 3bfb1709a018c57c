package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pullScenario pulls and unpacks unpackScenario's image from a registry on this machine. The cost
// of the transfer is included: the registry shares the processors. The target is a share of the
// time of Debian's containerd; another, newer one has to be beaten.
func pullScenario(otherPeer bool) scenario {
	limit := 0.35
	if otherPeer {
		limit = 1
	}
	return scenario{
		name: "pull", what: "pull and unpack an image of 10 layers, 1 GiB unpacked, from a local registry", unit: "s", rounds: 3,
		targets: []target{{variant: "cleat pull", base: "ctr images pull", limit: limit}},
		prepare: func(ctx context.Context, e *environment) ([]variant, func() error, error) {
			return e.preparePull(ctx, func(ctx context.Context, _ *daemon, argv []string) (float64, error) {
				ms, err := e.timed(ctx, argv)
				return ms / 1000, err
			})
		},
	}
}

// peakScenario measures the daemons' memory during the same, helpers and pages of files not counted.
func peakScenario() scenario {
	return scenario{
		name: "peak", what: "resident memory of the daemon at its highest during such a pull", unit: "MiB", rounds: 3,
		targets: []target{{variant: "cleat pull", base: "ctr images pull", limit: 1}},
		prepare: func(ctx context.Context, e *environment) ([]variant, func() error, error) {
			return e.preparePull(ctx, func(ctx context.Context, d *daemon, argv []string) (float64, error) {
				if err := d.resetPeak(); err != nil {
					return 0, err
				}
				if err := e.done(ctx, argv); err != nil {
					return 0, err
				}
				return d.peak()
			})
		},
	}
}

// preparePull pushes the image to a registry, and returns a variant for each daemon that pulls it by a
// command which how measures.
func (e *environment) preparePull(
	ctx context.Context, how func(ctx context.Context, d *daemon, argv []string) (float64, error),
) (_ []variant, cleanup func() error, err error) {
	dir, err := os.MkdirTemp(e.dir, "pull-")
	if err != nil {
		return nil, nil, err
	}
	reg, err := startRegistry(ctx, dir)
	cleanup = func() error { return errors.Join(reg.stop(), os.RemoveAll(dir)) }
	if err != nil {
		return nil, cleanup, err
	}
	archive, _, err := buildBig(dir)
	if err != nil {
		return nil, cleanup, err
	}
	ref := reg.address + "/cleatbig:latest"
	for _, argv := range [][]string{
		e.cleatCommand("image", "import", archive),
		e.cleatCommand("push", ref, bigName),
		e.cleatCommand("image", "rm", bigName),
		e.cleatCommand("gc"),
	} {
		if err := e.done(ctx, argv); err != nil {
			return nil, cleanup, err
		}
	}
	return []variant{
		{"cleat pull", func(ctx context.Context) (float64, error) {
			v, err := how(ctx, &e.cleat, e.cleatCommand("pull", "--quiet", ref))
			return v, errors.Join(err, e.done(ctx, e.cleatCommand("image", "rm", ref)), e.done(ctx, e.cleatCommand("gc")))
		}},
		{"ctr images pull", func(ctx context.Context) (float64, error) {
			v, err := how(ctx, &e.peer, e.ctrCommand("images", "pull", "--plain-http", ref))
			return v, errors.Join(err, e.done(ctx, e.ctrCommand("images", "rm", "--sync", ref)))
		}},
	}, cleanup, nil
}

// registry is Debian's docker-registry with a storage of its own.
type registry struct {
	address string
	process *exec.Cmd
}

func startRegistry(ctx context.Context, dir string) (*registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port: %w", err)
	}
	r := &registry{address: l.Addr().String()}
	if err := l.Close(); err != nil {
		return r, err
	}
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "registry"), r.address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return r, fmt.Errorf("configure registry: %w", err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start registry (Debian: docker-registry): %w", err)
	}
	r.process = cmd
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get("http://" + r.address + "/v2/")
		if err == nil {
			return r, resp.Body.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return r, fmt.Errorf("start registry: no answer after %v: %w", daemonStart, err)
		}
	}
}

func (r *registry) stop() error {
	if r == nil || r.process == nil {
		return nil
	}
	err := r.process.Process.Kill()
	_ = r.process.Wait() // it was killed
	return err
}

// resetPeak resets the kernel's record of the daemon's peak memory.
func (d *daemon) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.process.Process.Pid), []byte("5"), 0)
}

// peak returns the daemon's peak resident memory since then, in MiB.
func (d *daemon) peak() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.Atoi(f[1])
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmHWM", d.process.Process.Pid)
}
