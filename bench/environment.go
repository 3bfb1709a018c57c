package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/client/spec"
)

// environment is a cleatd and a containerd of the benchmark's own, both with the image, and a
// bundle for bare runc.
type environment struct {
	dir, bin  string
	state     string // below /run, for the state of running containers
	image     image
	namespace string
	cleat     daemon
	peer      daemon
	bundle    string
	count     int
}

// daemon is a running daemon.
type daemon struct {
	name, address string
	process       *exec.Cmd
	log           *os.File
}

const daemonStart = 20 * time.Second

func newEnvironment(ctx context.Context, bin string) (_ *environment, err error) {
	dir, err := os.MkdirTemp("", "cleatbench")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	// containerd's shims keep runc's state by namespace alone, outside of any configured directory.
	e := &environment{dir: dir, bin: bin, namespace: filepath.Base(dir), state: filepath.Join(runDir, filepath.Base(dir))}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := os.Mkdir(e.state, 0o711); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if e.image, err = buildImage(dir); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	if err := e.startCleat(ctx); err != nil {
		return nil, err
	}
	if err := e.startPeer(ctx); err != nil {
		return nil, err
	}
	if err := e.runToEnd(ctx, e.cleatCommand("namespace", "create", e.namespace)); err != nil {
		return nil, err
	}
	if err := e.runToEnd(ctx, e.cleatCommand("image", "import", e.image.archive)); err != nil {
		return nil, err
	}
	if err := e.runToEnd(ctx, e.ctrCommand("images", "import", e.image.archive)); err != nil {
		return nil, err
	}
	e.bundle, err = e.newBundle("bundle", "/bin/true")
	return e, err
}

func (e *environment) startCleat(ctx context.Context) error {
	d := daemon{name: "cleatd", address: filepath.Join(e.dir, "cleat.sock")}
	err := d.start(ctx, e.dir, filepath.Join(e.bin, "cleatd"),
		"--config", os.DevNull, "--root", filepath.Join(e.dir, "cleat-root"), "--state", filepath.Join(e.state, "cleat"),
		"--address", d.address, "--log-level", "warn")
	e.cleat = d
	return err
}

const peerConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = %q
[debug]
  level = "error"
`

func (e *environment) startPeer(ctx context.Context) error {
	d := daemon{name: "containerd", address: filepath.Join(e.dir, "peer.sock")}
	config := filepath.Join(e.dir, "peer.toml")
	text := fmt.Sprintf(peerConfig, filepath.Join(e.dir, "peer-root"), filepath.Join(e.state, "peer"), d.address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure containerd: %w", err)
	}
	err := d.start(ctx, e.dir, "containerd", "--config", config)
	e.peer = d
	return err
}

// start runs a daemon and waits until its socket exists.
func (d *daemon) start(ctx context.Context, dir, program string, args ...string) error {
	log, err := os.Create(filepath.Join(dir, d.name+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.log = log
	d.process = exec.Command(program, args...)
	d.process.Stdout, d.process.Stderr = log, log
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C ends the benchmark, which then stops it
	if err := d.process.Start(); err != nil {
		d.process = nil
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, daemonStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(d.address + ".ttrpc"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("start %s: no socket after %v: %s", d.name, daemonStart, text)
		}
	}
}

func (d *daemon) stop() error {
	if d.process == nil {
		return nil
	}
	// An exit by the signal is expected.
	err := d.process.Process.Signal(syscall.SIGTERM)
	_ = d.process.Wait()
	return errors.Join(err, d.log.Close())
}

// close stops the daemons and removes the directory; all containers have ended by then.
func (e *environment) close() error {
	err := errors.Join(e.cleat.stop(), e.peer.stop())
	return errors.Join(err, unmountBelow(e.dir), unmountBelow(e.state), removeParents(e.namespace), os.RemoveAll(e.dir), os.RemoveAll(e.state))
}

// removeParents removes the empty directories that runc leaves above those of its containers: the
// namespace's cgroups, and the directories of containerd's shims by namespace.
func removeParents(namespace string) error {
	var errs error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/", "/run/containerd/runc/"} {
		found, err := filepath.Glob(pattern + namespace)
		errs = errors.Join(errs, err)
		for _, dir := range found {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = errors.Join(errs, err)
			}
		}
	}
	return errs
}

func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			err = errors.Join(err, syscall.Unmount(f[1], syscall.MNT_DETACH))
		}
	}
	return err
}

// newBundle creates a bundle with the spec that cleat's command line generates.
func (e *environment) newBundle(name string, args ...string) (string, error) {
	s, err := spec.Generate(spec.Image{}, spec.Options{Args: args, Hostname: "bench"})
	if err != nil {
		return "", err
	}
	s.Linux.CgroupsPath = "/" + e.namespace + "/" + name
	config, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(e.dir, name)
	if err := unpackTo(filepath.Join(dir, "rootfs")); err != nil {
		return "", fmt.Errorf("make bundle: %w", err)
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
}

// nextID returns a new container id.
func (e *environment) nextID(prefix string) string {
	e.count++
	return fmt.Sprintf("%s-%d", prefix, e.count)
}

func (e *environment) cleatCommand(args ...string) []string {
	return append([]string{filepath.Join(e.bin, "cleat"), "--address", e.cleat.address, "--namespace", e.namespace}, args...)
}

func (e *environment) ctrCommand(args ...string) []string {
	return append([]string{"ctr", "--address", e.peer.address, "--namespace", e.namespace}, args...)
}

func (e *environment) runcCommand(args ...string) []string {
	return append([]string{"runc", "--root", filepath.Join(e.state, "runc")}, args...)
}

// runToEnd runs a command; the error includes its output.
func (e *environment) runToEnd(ctx context.Context, argv []string) error {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, out.String(), errs.String())
	}
	return nil
}

// timed runs a command and returns how long it took, in milliseconds. Its
// output goes to /dev/null.
func (e *environment) timed(ctx context.Context, argv []string) (float64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var errs bytes.Buffer
	file, err := os.CreateTemp(e.dir, "stderr")
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = file.Close(), os.Remove(file.Name()) }()
	cmd.Stderr = file
	began := time.Now()
	err = cmd.Run()
	took := time.Since(began)
	if err != nil {
		text, _ := os.ReadFile(file.Name())
		errs.Write(text)
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, errs.String())
	}
	return float64(took.Microseconds()) / 1000, nil
}
