package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// terminal is the user's terminal, if stdin or stdout is one.
type terminal struct {
	input, output console.Console // nil if the stream is not a terminal
	raw           bool            // input is in raw mode
}

// stream is a stream of this process as a console's file. The descriptor of os.File's Fd would be made blocking, for
// all processes that share it.
type stream struct {
	*os.File
	fd uintptr
}

// Fd implements console.File.
func (s stream) Fd() uintptr { return s.fd }

// openConsole returns the terminal that a stream is, and console.ErrNotAConsole if it is something else.
func openConsole(file *os.File) (console.Console, error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := stream{File: file}
	if err := conn.Control(func(fd uintptr) { s.fd = fd }); err != nil {
		return nil, err
	}
	return console.ConsoleFromFile(s)
}

// openTerminal looks at the streams. A process with a terminal and stdin needs one here too.
func (a *app) openTerminal(p *processFlags) (*terminal, error) {
	t := &terminal{}
	if !p.tty || p.detach {
		return t, nil
	}
	if c, err := openConsole(a.stdin); err == nil {
		t.input = c
	}
	if c, err := openConsole(a.stdout); err == nil {
		t.output = c
	}
	if p.interactive && t.input == nil {
		return nil, hinted(fmt.Errorf("connect terminal: stdin is not one: %w", errdefs.ErrFailedPrecondition),
			"leave -t out to send input from a file or a pipe")
	}
	return t, nil
}

// makeRaw passes every key to the container and its every byte to the screen; restore undoes it.
func (t *terminal) makeRaw() error {
	if t.input == nil {
		return nil
	}
	if err := t.input.SetRaw(); err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	t.raw = true
	if err := keepOutput(t.input); err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", errors.Join(err, t.restore()))
	}
	return nil
}

// keepOutput ends the processing of output, which the container's own terminal does. SetRaw leaves it on, and a
// program that moves the cursor one line down would find it in the first column.
func keepOutput(c console.Console) error {
	state, err := unix.IoctlGetTermios(int(c.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	state.Oflag &^= unix.OPOST
	return unix.IoctlSetTermios(int(c.Fd()), unix.TCSETS, state)
}

// restore returns the terminal to its state at openTerminal. Restoring twice does nothing.
func (t *terminal) restore() error {
	if !t.raw {
		return nil
	}
	t.raw = false
	if err := t.input.Reset(); err != nil && !errors.Is(err, unix.EIO) { // EIO: the terminal is gone
		return hinted(fmt.Errorf("restore terminal: %w", err), "the command reset makes the terminal usable again")
	}
	return nil
}

// gone reports whether the terminal hung up: its window was closed, or its connection lost. This is visible as soon as
// reading ends, before the terminal refuses settings.
func (t *terminal) gone() bool {
	for _, c := range []console.Console{t.input, t.output} {
		if c == nil {
			continue
		}
		fds := []unix.PollFd{{Fd: int32(c.Fd())}} // a hang-up needs no request
		_, err := unix.Poll(fds, 0)               // which does not wait, so that no signal interrupts it
		if err == nil && fds[0].Revents&unix.POLLHUP != 0 {
			return true
		}
	}
	return false
}

// size is that of the window; ok is false without a terminal.
func (t *terminal) size() (width, height uint32, ok bool) {
	for _, c := range []console.Console{t.output, t.input} {
		if c == nil {
			continue
		}
		if w, err := c.Size(); err == nil && w.Width > 0 && w.Height > 0 {
			return uint32(w.Width), uint32(w.Height), true
		}
	}
	return 0, 0, false
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
