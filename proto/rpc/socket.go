package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// maxSocketPath is the capacity of sockaddr_un, less the terminating zero (unix(7)).
const maxSocketPath = 107

// SocketPath strips the schemes under which a unix address is written (unix://, ttrpc+unix://,
// grpc+unix://) and returns the path. Abstract addresses and other schemes are
// errdefs.ErrInvalidArgument.
func SocketPath(address string) (string, error) {
	path := address
	for _, scheme := range []string{"ttrpc+unix://", "grpc+unix://", "unix://"} {
		if p, ok := strings.CutPrefix(address, scheme); ok {
			path = p
			break
		}
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("socket address %q: want an absolute path, plain or after unix://: %w", address, errdefs.ErrInvalidArgument)
	}
	return path, nil
}

// short runs f with a name for path that fits a socket address: path itself, or, if it is too
// long, its last part below a descriptor of its directory.
func short(path string, f func(name string) error) error {
	if len(path) <= maxSocketPath {
		return f(path)
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return errors.Join(f(name), dir.Close())
}

// Listen binds a unix socket at path with the given mode. The path may be longer than a socket
// address; only its last part must fit. An existing file is an error: remove a stale
// socket first. Closing the listener keeps the file.
func Listen(path string, mode os.FileMode) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := short(path, func(name string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return nil
	})
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// DialSocket connects to the unix socket at an address; paths of any length work. If there is
// no listener the error is errdefs.ErrUnavailable and unwraps to the system's.
func DialSocket(ctx context.Context, address string) (net.Conn, error) {
	path, err := SocketPath(address)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = short(path, func(name string) (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", path, err, errdefs.ErrUnavailable)
	}
	return conn, nil
}

// Dial connects a ttrpc client to the unix socket at an address; see DialSocket.
func Dial(ctx context.Context, address string, opts ...ttrpc.ClientOpts) (*ttrpc.Client, error) {
	conn, err := DialSocket(ctx, address)
	if err != nil {
		return nil, err
	}
	return ttrpc.NewClient(conn, opts...), nil
}
