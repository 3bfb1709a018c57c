package shim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/rpc"
)

// consoleLimit is how long the runtime may take to send the console after it has succeeded.
const consoleLimit = 5 * time.Second

// consoleSocket is where the OCI runtime sends the master of the terminal it made.
type consoleSocket struct {
	listener *net.UnixListener
	path     string
}

func listenConsole(path string) (*consoleSocket, error) {
	l, err := rpc.Listen(path, 0o600)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &consoleSocket{listener: l, path: path}, nil
}

// Path implements runc.ConsoleSocket. It is the path as the runtime, whose working directory is the bundle, finds the
// socket: a socket address cannot hold a long path.
func (c *consoleSocket) Path() string { return filepath.Base(c.path) }

// receive returns the console. The runtime has sent it before it exits, so it is there already.
func (c *consoleSocket) receive() (_ *os.File, err error) {
	if err := c.listener.SetDeadline(time.Now().Add(consoleLimit)); err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(consoleLimit)); err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob) // the runtime in Go sets CLOEXEC on what it receives
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive console: no descriptor came: %w", errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive console: no descriptor came: %w", errors.Join(err, unix.EBADMSG))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(fmt.Errorf("receive console: %w", err), unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}

func (c *consoleSocket) close() error {
	err := c.listener.Close()
	if rerr := os.Remove(c.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}
