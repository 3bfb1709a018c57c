package stdio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/rpc"
)

// consoleLimit is how long the runtime may take to send the console after it has succeeded.
const consoleLimit = 5 * time.Second

// ConsoleSocket receives the master of the terminal from the OCI runtime.
type ConsoleSocket struct {
	listener *net.UnixListener
	path     string
}

// ListenConsole creates the socket at path, for root only. Close it.
func ListenConsole(path string) (*ConsoleSocket, error) {
	l, err := rpc.Listen(path, 0o600)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &ConsoleSocket{listener: l, path: path}, nil
}

// Path implements runc.ConsoleSocket. It returns the path relative to the bundle, the runtime's working directory: a
// socket address cannot hold a long path.
func (c *ConsoleSocket) Path() string { return filepath.Base(c.path) }

// receive returns the console. The runtime sends it before it exits, so it is available already.
func (c *ConsoleSocket) receive() (_ *master, err error) {
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
	return newMaster(fds[0])
}

// master is the master of a terminal.
type master struct {
	console.Console
	file *masterFile
}

// newMaster takes over the descriptor of a master.
func newMaster(fd int) (*master, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("receive console: %w", err), unix.Close(fd))
	}
	f := &masterFile{File: os.NewFile(uintptr(fd), "console"), fd: uintptr(fd)}
	c, err := console.ConsoleFromFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive console: %w", err), f.Close())
	}
	return &master{Console: c, file: f}, nil
}

// masterFile is the file of a console, registered with the poller: Close ends a Read.
type masterFile struct {
	*os.File
	fd      uintptr
	pending atomic.Bool // something is read, or being read, and not yet written
}

var _ console.File = (*masterFile)(nil)

// Fd returns the descriptor, valid until Close. os.File's Fd would make the file blocking.
func (f *masterFile) Fd() uintptr { return f.fd }

// Read reads output and waits for it. It is pending from before the output leaves the terminal, which empty checks.
func (f *masterFile) Read(p []byte) (n int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	rerr := conn.Read(func(fd uintptr) bool {
		f.pending.Store(true)
		for {
			if n, err = unix.Read(int(fd), p); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			f.pending.Store(false)
			return false
		}
		return true
	})
	switch {
	case rerr != nil: // the poller's own error; without a deadline there is only one cause
		return 0, os.ErrClosed
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// empty reports whether nothing waits to be read or written.
func (f *masterFile) empty() bool {
	if f.pending.Load() {
		return false
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return true
	}
	empty := true
	cerr := conn.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 0); err == nil {
			empty = fds[0].Revents&unix.POLLIN == 0
		}
	})
	return cerr != nil || (empty && !f.pending.Load())
}

// Close stops listening and removes the socket.
func (c *ConsoleSocket) Close() error {
	err := c.listener.Close()
	if rerr := os.Remove(c.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}
