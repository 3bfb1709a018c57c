package stdio

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// feed copies the caller's input to the FIFO that is a process's stdin.
type feed struct {
	in   io.Reader
	fifo *os.File
	end  func()
	// wake is an eventfd that interrupts waiting for input; nil where in cannot be waited for.
	wake *os.File
	done chan struct{}
}

func startFeed(in io.Reader, fifo *os.File, end func()) *feed {
	f := &feed{in: in, fifo: fifo, end: end, done: make(chan struct{})}
	if _, ok := in.(*os.File); ok {
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			f.wake = os.NewFile(uintptr(fd), "eventfd")
		}
	}
	go f.run()
	return f
}

// run ends at the end of the input, when the process has left its stdin, or when stopped.
func (f *feed) run() {
	defer close(f.done)
	buf := make([]byte, buffer)
	for {
		if !f.ready() {
			return
		}
		n, err := f.in.Read(buf)
		if n > 0 {
			if _, werr := f.fifo.Write(buf[:n]); werr != nil {
				return // the process, or the Set, has closed it
			}
		}
		if err == nil || errors.Is(err, unix.EAGAIN) {
			continue
		}
		// An input that cannot be read has ended as well, for the process.
		if f.fifo.Close() == nil && f.end != nil {
			f.end()
		}
		return
	}
}

// ready waits until there is input; false once stopped.
func (f *feed) ready() bool {
	file, ok := f.in.(*os.File)
	if !ok || f.wake == nil {
		return true
	}
	in, err := file.SyscallConn()
	if err != nil {
		return true // and Read will say what is wrong
	}
	wake, err := f.wake.SyscallConn()
	if err != nil {
		return false
	}
	stopped := false
	_ = wake.Control(func(wakeFD uintptr) { // it fails only for a closed file
		_ = in.Control(func(inFD uintptr) {
			fds := []unix.PollFd{{Fd: int32(inFD), Events: unix.POLLIN}, {Fd: int32(wakeFD), Events: unix.POLLIN}}
			_, _ = ignoringEINTR(func() (int, error) { return unix.Poll(fds, -1) })
			stopped = fds[1].Revents != 0
		})
	})
	return !stopped
}

// stop makes ready false.
func (f *feed) stop() {
	if f.wake != nil {
		_, _ = f.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes it
	}
}

// wait returns when the goroutine has ended. Call it after stop, with the FIFO closed.
func (f *feed) wait() {
	<-f.done
	if f.wake != nil {
		_ = f.wake.Close() // of a descriptor with nothing to lose
	}
}
