package shim

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// taken is a client that counts what it is given.
type taken struct{ n atomic.Int64 }

func (c *taken) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func (c *taken) Close() error { return nil }

// newTerminal opens a pseudo-terminal: the master as the shim has it, and the process's end, in raw mode.
func newTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "console")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestWhatIsOnItsWayIsNotDrained asks whether a terminal is drained at each moment of a byte's way from the process
// to the client.
func TestWhatIsOnItsWayIsNotDrained(t *testing.T) {
	master, slave := newTerminal(t)
	defer func() { _ = slave.Close() }()
	var client taken
	tty := &terminal{stdout: &client, log: &logger{out: io.Discard}, exited: make(chan struct{}), copied: make(chan struct{})}
	s := &stdio{tty: tty}
	s.attach(master)
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
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// TestDrainGivesUp has a client that holds its end of the output and does not read.
func TestDrainGivesUp(t *testing.T) {
	master, slave := newTerminal(t)
	defer func() { _ = slave.Close() }()
	r, w := io.Pipe()
	tty := &terminal{stdout: w, log: &logger{out: io.Discard}, exited: make(chan struct{}), copied: make(chan struct{})}
	s := &stdio{tty: tty}
	s.attach(master)
	if _, err := slave.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	s.drain() // returns
	if tty.drained() {
		t.Error("drained, though nobody has read")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
