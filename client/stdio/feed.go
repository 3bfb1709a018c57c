package stdio

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// feed copies the caller's input to the FIFO of a process's stdin.
type feed struct {
	in   *input
	fifo *os.File
	end  func()
	done chan struct{}
}

func startFeed(in io.Reader, fifo *os.File, end func()) *feed {
	f := &feed{in: newInput(in), fifo: fifo, end: end, done: make(chan struct{})}
	go f.run()
	return f
}

// run ends at the end of the input, when the process has closed its stdin, or when stopped.
func (f *feed) run() {
	defer close(f.done)
	buf := make([]byte, buffer)
	for {
		if !f.in.ready() {
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
		// An unreadable input has ended for the process as well.
		if f.fifo.Close() == nil && f.end != nil {
			f.end()
		}
		return
	}
}

// stop ends the wait for input.
func (f *feed) stop() { f.in.stop() }

// wait returns when the goroutine has ended. Call it after stop, with the FIFO closed.
func (f *feed) wait() {
	<-f.done
	f.in.close()
}
