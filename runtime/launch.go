package runtime

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/hostproc"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// shim is a shim that was just launched.
type shim struct {
	bundle  *bundle
	address address
	// child is the shim if it is this process's own child, else nil.
	child *reaper.Child
}

// startLimit bounds the `start` and `delete` verbs of a foreign shim.
const startLimit = 30 * time.Second

// launch starts the shim of a bundle.
func (m *Manager) launch(ctx context.Context, b *bundle, binary string, options *types.Any) (*shim, error) {
	if native(binary) {
		return m.launchNative(b, binary)
	}
	return m.launchForeign(ctx, b, binary, options)
}

// launchNative passes cleat's shim its listening socket: one exec, and no handshake, since a
// connection waits in the socket's queue until the shim accepts it.
func (m *Manager) launchNative(b *bundle, binary string, env ...string) (_ *shim, err error) {
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	path := filepath.Join(m.cfg.State, "s", strings.ToLower(rand.Text()[:16]))
	// Written before socket and shim exist: from now on a restart finds them.
	addr := address{Version: 3, Address: "unix://" + path, Protocol: "ttrpc", Native: true}
	if err := b.writeAddress(addr); err != nil {
		return nil, err
	}
	l, err := rpc.Listen(path, 0o600)
	if err != nil {
		return nil, err
	}
	u.Push("remove socket", func() error { return removeFile(path) })
	defer func() { err = errors.Join(err, l.Close()) }()
	fd, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("share socket: %w", err)
	}
	defer func() { err = errors.Join(err, fd.Close()) }()
	log, err := os.OpenFile(b.file(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create shim log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := m.shimCommand(b, binary, "serve")
	// One P: each further one costs a shim about 350 KiB (shim/memory.go).
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1", "CLEAT_LISTEN_FD=3")
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = []*os.File{fd}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var child *reaper.Child
	err = m.cfg.Attributes.Start(func() (err error) {
		child, err = m.cfg.Reaper.Spawn(cmd)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	m.detach(child.Pid())
	u.Release()
	return &shim{bundle: b, address: addr, child: child}, nil
}

// shimCommand returns the published command line and environment of a shim.
func (m *Manager) shimCommand(b *bundle, binary, verb string, extra ...string) *exec.Cmd {
	args := []string{
		"-namespace", b.namespace, "-address", m.cfg.Address,
		"-publish-binary", m.cfg.Binary, "-id", b.id,
	}
	args = append(args, extra...)
	if m.cfg.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(binary, append(args, verb)...) // a shim outlives every context
	cmd.Dir = b.path
	cmd.Env = []string{
		"PATH=" + cmp.Or(os.Getenv("PATH"), defaultPath),
		"TTRPC_ADDRESS=" + m.cfg.TTRPCAddress, "GRPC_ADDRESS=" + m.cfg.Address,
		"NAMESPACE=" + b.namespace, "MAX_SHIM_VERSION=2",
	}
	return cmd
}

// defaultPath is the PATH in which shims find their OCI runtime when the daemon has none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// detach resets the process-wide attributes of a process that was just started which it must not
// inherit. A failure is logged and changes nothing else.
func (m *Manager) detach(pid int) {
	if err := errors.Join(m.cfg.Attributes.SetLimits(pid), hostproc.SetOOMScore(pid)); err != nil {
		m.undetached.Do(func() {
			m.cfg.Log.Warn("shims inherit attributes of the daemon", "pid", pid, "error", err)
		})
	}
}

// launchForeign runs the published `start`, which starts a shim in the background and prints its
// address.
func (m *Manager) launchForeign(ctx context.Context, b *bundle, binary string, options *types.Any) (*shim, error) {
	stdin := []byte(nil)
	if options != nil {
		data, err := rpc.Marshal(options)
		if err != nil {
			return nil, err
		}
		stdin = data
	}
	if err := unix.Mkfifo(b.file(logFile), 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("create shim log: %w", err)
	}
	m.followLog(b)
	cmd := m.shimCommand(b, binary, "start")
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2")
	out, err := m.output(ctx, cmd, stdin)
	if err != nil {
		return nil, fmt.Errorf("%s start: %w", filepath.Base(binary), err)
	}
	addr, err := parseStart(out)
	if err != nil {
		return nil, fmt.Errorf("%s start: %w", filepath.Base(binary), err)
	}
	if err := b.writeAddress(addr); err != nil {
		return nil, err
	}
	return &shim{bundle: b, address: addr}, nil
}

// output runs a short command and returns its stdout. When ctx ends the command is killed.
func (m *Manager) output(ctx context.Context, cmd *exec.Cmd, stdin []byte) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a process that holds the pipe must not block this one
	var exits chan runc.Exit
	err := m.cfg.Attributes.Start(func() (err error) {
		exits, err = m.cfg.Reaper.Start(cmd)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.detach(cmd.Process.Pid)
	ctx, stop := withPatience(ctx, startLimit, func() int { return cmd.Process.Pid })
	defer stop()
	done := make(chan struct{})
	var status int
	var waitErr error
	m.wg.Go(func() {
		defer close(done)
		status, waitErr = m.cfg.Reaper.Wait(cmd, exits)
	})
	select {
	case <-done:
	case <-ctx.Done():
		if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, errors.Join(ctx.Err(), err)
		}
		<-done
		if errors.Is(context.Cause(ctx), errSlow) {
			return nil, fmt.Errorf("no answer in %s: %w", startLimit, errdefs.ErrUnavailable)
		}
		return nil, ctx.Err()
	}
	if waitErr != nil {
		return nil, waitErr
	}
	if status != 0 {
		return nil, fmt.Errorf("exit status %d: %s", status, cmp.Or(strings.TrimSpace(stderr.String()), strings.TrimSpace(stdout.String()), "no message"))
	}
	return stdout.Bytes(), nil
}

// parseStart reads the answer of `start` in its three published forms: protobuf, JSON, and a bare
// address.
func parseStart(out []byte) (address, error) {
	text := strings.TrimSpace(string(out))
	if strings.HasPrefix(text, "{") {
		var a address
		if err := json.Unmarshal([]byte(text), &a); err == nil && a.Address != "" {
			return checkAddress(a)
		}
	}
	var r bootstrap.BootstrapResult
	if err := r.Unmarshal(out); err == nil && r.Address != "" && strings.Contains(r.Address, "://") && r.Version > 0 {
		return checkAddress(address{Version: int(r.Version), Address: r.Address, Protocol: r.Protocol})
	}
	if text == "" {
		return address{}, fmt.Errorf("no address in the output: %w", errdefs.ErrUnknown)
	}
	return checkAddress(address{Version: 2, Address: text, Protocol: "ttrpc"})
}

// checkAddress refuses an address that cannot be dialled, before it is written.
func checkAddress(a address) (address, error) {
	a.Native = false
	if a.Version < 2 || a.Version > 3 {
		return address{}, fmt.Errorf("task API version %d: only 2 and 3 are supported: %w", a.Version, errdefs.ErrNotImplemented)
	}
	if _, err := rpc.SocketPath(a.Address); err != nil {
		return address{}, err
	}
	return a, nil
}

// joinAddress parses the address of a running shim: PROTOCOL+unix://PATH, or without the protocol.
func joinAddress(text string, version uint32) (address, error) {
	a := address{Version: int(version), Address: text, Protocol: "ttrpc"}
	if protocol, rest, ok := strings.Cut(text, "+"); ok && !strings.Contains(protocol, ":") {
		a.Protocol, a.Address = protocol, rest
	}
	if a.Version == 0 {
		a.Version = 3
	}
	a, err := checkAddress(a)
	if err != nil {
		return address{}, fmt.Errorf("join shim at %q: %w", text, err)
	}
	a.Joined = true
	return a, nil
}

// explain adds the shim's log to err if that contains more.
func (s *shim) explain(err error) error {
	if !errdefs.IsUnavailable(err) && !errors.Is(err, io.EOF) {
		return err
	}
	info, serr := os.Lstat(s.bundle.file(logFile))
	if serr != nil || !info.Mode().IsRegular() {
		return err
	}
	if text := s.bundle.read(logFile); text != "" {
		const keep = 1000
		return fmt.Errorf("%w; end of shim log: %s", err, text[max(0, len(text)-keep):])
	}
	return err
}

// removeFile removes a file; a missing one is not an error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
