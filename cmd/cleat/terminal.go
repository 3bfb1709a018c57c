package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// terminal is the user's terminal, where stdin or stdout is one.
type terminal struct {
	// input and output are nil where the stream is no terminal.
	input, output *os.File
	// before is how input was before it was made raw; nil while it is not.
	before *unix.Termios
}

// openTerminal looks at the streams. A process with a terminal and stdin needs one here too.
func (a *app) openTerminal(p *processFlags) (*terminal, error) {
	t := &terminal{}
	if !p.tty || p.detach {
		return t, nil
	}
	if _, err := getTermios(a.stdin); err == nil {
		t.input = a.stdin
	}
	if _, err := getTermios(a.stdout); err == nil {
		t.output = a.stdout
	}
	if p.interactive && t.input == nil {
		return nil, hinted(fmt.Errorf("connect terminal: stdin is not one: %w", errdefs.ErrFailedPrecondition),
			"leave -t out to send input from a file or a pipe")
	}
	return t, nil
}

// makeRaw hands every key to the container and its every byte to the screen; restore undoes it.
func (t *terminal) makeRaw() error {
	if t.input == nil {
		return nil
	}
	before, err := getTermios(t.input)
	if err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	// cfmakeraw(3). The container's own terminal does the processing.
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := setTermios(t.input, &raw); err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	t.before = before
	return nil
}

// restore gives the terminal back as it was. Restoring twice does nothing.
func (t *terminal) restore() error {
	if t.before == nil {
		return nil
	}
	before := t.before
	t.before = nil
	if err := setTermios(t.input, before); err != nil && !errors.Is(err, unix.EIO) { // EIO: the terminal is gone
		return hinted(fmt.Errorf("restore terminal: %w", err), "the command reset makes the terminal usable again")
	}
	return nil
}

// gone tells of a terminal that hung up: its window was closed, or its connection lost. It knows from when reading
// ends by that, which is before the terminal takes no settings any more.
func (t *terminal) gone() bool {
	for _, f := range []*os.File{t.input, t.output} {
		if f == nil {
			continue
		}
		fds := []unix.PollFd{{}} // that it hung up is told unasked
		err := control(f, func(fd int) error {
			fds[0].Fd = int32(fd)
			_, err := unix.Poll(fds, 0) // which does not wait, so that no signal interrupts it
			return err
		})
		if err == nil && fds[0].Revents&unix.POLLHUP != 0 {
			return true
		}
	}
	return false
}

// size is that of the window; ok is false where there is no terminal.
func (t *terminal) size() (width, height uint32, ok bool) {
	for _, f := range []*os.File{t.output, t.input} {
		if f == nil {
			continue
		}
		var w *unix.Winsize
		err := control(f, func(fd int) (err error) {
			w, err = unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
			return err
		})
		if err == nil && w.Col > 0 && w.Row > 0 {
			return uint32(w.Col), uint32(w.Row), true
		}
	}
	return 0, 0, false
}

func getTermios(f *os.File) (t *unix.Termios, err error) {
	err = control(f, func(fd int) (err error) {
		t, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return t, err
}

func setTermios(f *os.File, t *unix.Termios) error {
	return control(f, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, t) })
}

// control calls f with the file's descriptor, whose mode stays what it is.
func control(file *os.File, f func(fd int) error) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// followSize calls resize now and whenever the window changes, until the returned function is
// called, which waits for the last call.
func (t *terminal) followSize(ctx context.Context, resize func(ctx context.Context, width, height uint32) error) (stop func()) {
	if t.input == nil && t.output == nil {
		return func() {}
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		for {
			if w, h, ok := t.size(); ok {
				if err := resize(ctx, w, h); errdefs.IsNotFound(err) || errors.Is(err, context.Canceled) {
					return
				}
			}
			select {
			case <-changes:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		cancel()
		done.Wait()
	}
}
