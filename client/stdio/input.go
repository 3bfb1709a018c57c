package stdio

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// input is a caller's reader; waiting for bytes can be interrupted if it is a file.
type input struct {
	io.Reader
	// wake is an eventfd that interrupts the wait; nil if the reader cannot be polled.
	wake *os.File
}

func newInput(in io.Reader) *input {
	i := &input{Reader: in}
	if _, ok := in.(*os.File); ok {
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			i.wake = os.NewFile(uintptr(fd), "eventfd")
		}
	}
	return i
}

// ready waits until there is input; false once stopped.
func (i *input) ready() bool {
	file, ok := i.Reader.(*os.File)
	if !ok || i.wake == nil {
		return true
	}
	in, err := file.SyscallConn()
	if err != nil {
		return true // Read will return the error
	}
	wake, err := i.wake.SyscallConn()
	if err != nil {
		return false
	}
	stopped := false
	_ = wake.Control(func(wakeFD uintptr) { // fails only for a closed file
		_ = in.Control(func(inFD uintptr) {
			fds := []unix.PollFd{{Fd: int32(inFD), Events: unix.POLLIN}, {Fd: int32(wakeFD), Events: unix.POLLIN}}
			_, _ = ignoringEINTR(func() (int, error) { return unix.Poll(fds, -1) })
			stopped = fds[1].Revents != 0
		})
	})
	return !stopped
}

// stop makes ready false.
func (i *input) stop() {
	if i.wake != nil {
		_, _ = i.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd accepts it
	}
}

// close releases the resources of the wait; the caller closes the reader.
func (i *input) close() {
	if i.wake != nil {
		_ = i.wake.Close() // nothing to lose
	}
}
