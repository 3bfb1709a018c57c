package shim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
)

const (
	stdinLimit = 1 << 20
	// socketNameLen of hexadecimal digits keep the names apart and the paths short.
	socketNameLen = 32
	// longestSocket is the longest path that other daemons can dial.
	longestSocket = 107
	// fallbackSocketDir is used when the daemon's own directory has a path too long for sockets.
	fallbackSocketDir = "/run/cleat/shim-s"
)

// start is the verb by which published daemons start a shim: it binds the socket, starts a
// background process that serves it (the verb serve), and prints its address. Nothing is written to
// stderr: some daemons read it together with the answer.
func start(cfg Config, env environment) error {
	params, err := readParams(cfg, env.stdin)
	if err != nil {
		return err
	}
	dir := ""
	if params != nil {
		dir = params.SocketDir
		if env.ttrpcAddress == "" {
			env.ttrpcAddress = params.ContainerdTtrpcAddress
		}
	}
	path, err := socketPath(cfg, dir)
	if err != nil {
		return err
	}
	listener, err := bind(path)
	if err != nil {
		return err
	}
	var u undo.Stack
	u.Push("remove socket", func() error { return os.Remove(path) })
	address := "unix://" + path
	if err := startServer(cfg, env, listener, address); err != nil {
		return errors.Join(err, listener.Close(), u.Run())
	}
	u.Release()
	if err := listener.Close(); err != nil {
		return fmt.Errorf("close socket: %w", err)
	}
	if params != nil {
		return answer(env, &bootstrap.BootstrapResult{Version: 3, Address: address, Protocol: "ttrpc"})
	}
	if _, err := io.WriteString(env.stdout, address); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// readParams reads the newer form of stdin; nil for the older one, an Any of options, which Create
// sends again. An Any can decode as the newer form by accident, hence the comparison.
func readParams(cfg Config, stdin io.Reader) (*bootstrap.BootstrapParams, error) {
	data, err := io.ReadAll(io.LimitReader(stdin, stdinLimit))
	if err != nil {
		return nil, fmt.Errorf("read parameters: %w", err)
	}
	p := &bootstrap.BootstrapParams{}
	if p.Unmarshal(data) != nil || p.InstanceId != cfg.ID || p.Namespace != cfg.Namespace {
		return nil, nil //nolint:nilerr // the older form
	}
	return p, nil
}

// socketPath returns the path of the shim's socket: a name derived from the daemon, the namespace
// and the id, in the requested directory, or next to the daemon's socket.
func socketPath(cfg Config, dir string) (string, error) {
	sum := sha256.Sum256([]byte(cfg.Address + "/" + cfg.Namespace + "/" + cfg.ID))
	name := hex.EncodeToString(sum[:])[:socketNameLen]
	if dir == "" {
		dir = fallbackSocketDir
		if p, err := rpc.SocketPath(cfg.Address); err == nil {
			dir = filepath.Join(filepath.Dir(p), "s")
		}
	}
	if len(dir)+1+len(name) > longestSocket {
		dir = fallbackSocketDir
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory of sockets: %w", err)
	}
	return filepath.Join(dir, name), nil
}

// bind listens at path. It replaces a dead shim's socket and returns errdefs.ErrAlreadyExists for a
// live one.
func bind(path string) (*net.UnixListener, error) {
	l, err := rpc.Listen(path, 0o600)
	if err == nil || !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, derr := rpc.DialSocket(ctx, path)
	if derr == nil {
		return nil, errors.Join(fmt.Errorf("a shim listens on %s already: %w", path, errdefs.ErrAlreadyExists), conn.Close())
	}
	if !errors.Is(derr, unix.ECONNREFUSED) {
		return nil, derr
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	return rpc.Listen(path, 0o600)
}

// startServer starts the process that serves, in a session of its own.
func startServer(cfg Config, env environment, listener *net.UnixListener, address string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("hand socket over: %w", err)
	}
	defer func() { _ = socket.Close() }()
	args := []string{"-namespace", cfg.Namespace, "-address", cfg.Address, "-publish-binary", cfg.PublishBinary, "-id", cfg.ID, "-bundle", cfg.Bundle}
	if cfg.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, append(args, "serve")...) // it outlives this process
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "TTRPC_ADDRESS="+env.ttrpcAddress)
	cmd.Dir = cfg.Bundle
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if log := openLog(cfg.Bundle); log != nil {
		defer func() { _ = log.Close() }()
		cmd.Stderr = log
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	for name, text := range map[string]string{
		shimPidFile: strconv.Itoa(cmd.Process.Pid), addressFile: address,
	} {
		if err := os.WriteFile(filepath.Join(cfg.Bundle, name), []byte(text), 0o600); err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", name, err), cmd.Process.Kill())
		}
	}
	return cmd.Process.Release()
}

// openLog opens the FIFO from which the daemon reads the shim's stderr; nil if there is none.
// Opened for both ends without blocking: it neither waits for the daemon nor fails when it dies.
func openLog(bundle string) *os.File {
	fd, err := unix.Open(filepath.Join(bundle, logFIFO), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), logFIFO)
}
