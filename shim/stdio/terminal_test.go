package stdio

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// taken is a client that counts the bytes it receives.
type taken struct{ n atomic.Int64 }

func (c *taken) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func (c *taken) Close() error { return nil }

// silent is a log without a reader.
type silent struct{}

func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}

// newTerminal opens a pseudo-terminal: the master as the shim has it, and the process's end, in raw mode.
func newTerminal(t *testing.T) (m *master, slave *os.File) {
	t.Helper()
	pty, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(pty.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err := errors.Join(err, pty.Close()); err != nil {
		t.Fatal(err)
	}
	if m, err = newMaster(fd); err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return m, slave
}

func TestMaster_CloseEndsRead(t *testing.T) {
	m, slave := newTerminal(t)
	defer func() { _ = slave.Close() }()
	if err := m.Resize(console.WinSize{Width: 0xffff, Height: 7}); err != nil {
		t.Fatal(err)
	}
	if size, err := m.Size(); err != nil || size.Width != 0xffff || size.Height != 7 {
		t.Errorf("size %+v, %v", size, err)
	}
	if flags, err := unix.FcntlInt(m.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the master has become blocking: %x, %v", flags, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := m.Read(make([]byte, 1))
		ended <- err
	}()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read of a closed master: %v", err)
	}
}

func TestNewMaster_NotATerminal_Fails(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fds[1]) }()
	if _, err := newMaster(fds[0]); !errors.Is(err, console.ErrNotAConsole) {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := unix.Write(fds[1], []byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the descriptor was left open: %v", err)
	}
}

// TestDrained_BytesInFlight_False checks whether a terminal is drained at each moment of a byte's way from the
// process to the client.
func TestDrained_BytesInFlight_False(t *testing.T) {
	m, slave := newTerminal(t)
	defer func() { _ = slave.Close() }()
	var client taken
	tty := &terminal{stdout: &client, log: silent{}, exited: make(chan struct{}), copied: make(chan struct{})}
	s := &Streams{tty: tty}
	s.attach(m)
	for i := int64(1); i <= 1000; i++ {
		if _, err := slave.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		for !tty.drained() {
			runtime.Gosched()
		}
		if n := client.n.Load(); n != i {
			t.Fatalf("drained, but the client has %d bytes of %d", n, i)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDrain_BlockedReader_GivesUp has a client that holds its end of the output and does not read.
func TestDrain_BlockedReader_GivesUp(t *testing.T) {
	m, slave := newTerminal(t)
	defer func() { _ = slave.Close() }()
	r, w := io.Pipe()
	tty := &terminal{stdout: w, log: silent{}, exited: make(chan struct{}), copied: make(chan struct{})}
	s := &Streams{tty: tty}
	s.attach(m)
	if _, err := slave.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	s.Drain() // returns
	if tty.drained() {
		t.Error("drained, before the client has read")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
