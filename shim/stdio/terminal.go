package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/console"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
)

// terminal connects a process's pseudo-terminal to the client's FIFOs. Unlike plain stdio, these
// bytes pass through the shim: a terminal's line discipline sits between them. A client may
// disconnect and reconnect; while it is away, or slow, output waits.
type terminal struct {
	stdin  *os.File       // nil for none
	stdout io.WriteCloser // nil for none: output is discarded
	log    Log

	wg     sync.WaitGroup
	exited chan struct{} // closed by ended
	once   sync.Once
	copied chan struct{} // closed when the last byte of output was moved

	moved atomic.Int64

	mu      sync.Mutex
	console *master // once attached
	closed  bool
}

// ttyChunk is the size of the copy buffers.
const ttyChunk = 4096

// ttyRetry is how long to wait for a terminal that no process has open at the moment.
const ttyRetry = 50 * time.Millisecond

func (s *Streams) openTerminal(ctx context.Context, env Env, in target, paths Paths) error {
	t := &terminal{log: env.Log, exited: make(chan struct{}), copied: make(chan struct{})}
	s.tty = t
	if in.kind == toFIFO {
		f, err := fifo.OpenBoth(in.path)
		if err != nil {
			return classFIFO("stdin", err)
		}
		t.stdin = f
	}
	out, err := parseTarget(paths.Stdout)
	if err != nil {
		return err
	}
	switch out.kind {
	case toNull:
	case toFIFO:
		hold, child, err := fifo.Sink(out.path)
		if err != nil {
			return classFIFO("stdout", err)
		}
		s.holds = append(s.holds, hold)
		w, err := fifo.OpenWriter(ctx, out.path) // at once: hold is a reader
		if err := errors.Join(err, child.Close()); err != nil {
			return classFIFO("stdout", err)
		}
		t.stdout = w
	case toFile:
		f, err := os.OpenFile(out.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		t.stdout = f
	case toLogger:
		w, errs, err := startLogger(ctx, env, out)
		if err != nil {
			return err
		}
		t.stdout = w
		return errs.Close()
	}
	return nil
}

// Attach receives the terminal's master from the OCI runtime, which has succeeded, and starts copying.
func (s *Streams) Attach(c *ConsoleSocket) error {
	m, err := c.receive()
	if err == nil {
		s.attach(m)
	}
	return err
}

// attach starts copying with the terminal's master, which it takes over.
func (s *Streams) attach(m *master) {
	t := s.tty
	t.mu.Lock()
	t.console = m
	t.mu.Unlock()
	t.wg.Go(t.copyOut)
	if t.stdin != nil {
		t.wg.Go(t.copyIn)
	}
}

// MaxCells bounds the width and height of a terminal, see TIOCSWINSZ in ioctl_tty(2).
const MaxCells = 0xffff

// Resize sets the terminal's size in cells, at most MaxCells each.
func (s *Streams) Resize(width, height uint32) error {
	s.mu.Lock()
	tty := s.tty
	s.mu.Unlock()
	if tty == nil {
		return fmt.Errorf("resize: process has no terminal: %w", errdefs.ErrFailedPrecondition)
	}
	tty.mu.Lock()
	defer tty.mu.Unlock()
	if tty.console == nil || tty.closed {
		return fmt.Errorf("resize: process has no terminal yet: %w", errdefs.ErrFailedPrecondition)
	}
	if err := tty.console.Resize(console.WinSize{Width: uint16(width), Height: uint16(height)}); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	return nil
}

// copyOut moves output until close, or until the process has exited and no process has the terminal
// open.
func (t *terminal) copyOut() {
	defer close(t.copied)
	if t.stdout != nil {
		defer func() { _ = t.stdout.Close() }() // the client's end of file
	}
	buf := make([]byte, ttyChunk)
	for {
		n, err := t.console.Read(buf)
		if n > 0 {
			if t.stdout != nil {
				if _, werr := t.stdout.Write(buf[:n]); werr != nil {
					if !errors.Is(werr, os.ErrClosed) {
						t.log.Warnf("copy terminal: %v", werr)
					}
					return
				}
			}
			t.moved.Add(int64(n))
		}
		t.console.file.pending.Store(false)
		if errors.Is(err, unix.EIO) { // no process has it open, temporarily or permanently
			if !t.reopened() {
				return
			}
			continue
		}
		if err != nil {
			return
		}
	}
}

// reopened waits a while for a process to open the terminal again and returns false if none does.
func (t *terminal) reopened() bool {
	timer := time.NewTimer(ttyRetry)
	defer timer.Stop()
	select {
	case <-t.exited:
		return false
	case <-timer.C:
		return true
	}
}

// copyIn moves input until close.
func (t *terminal) copyIn() {
	buf := make([]byte, ttyChunk)
	for {
		n, err := t.stdin.Read(buf)
		if err != nil {
			return
		}
		for n > 0 {
			_, err := t.console.Write(buf[:n])
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EIO) || !t.reopened() {
				return
			}
		}
	}
}

// ended marks the process as exited.
func (t *terminal) ended() { t.once.Do(func() { close(t.exited) }) }

// drained reports whether no output waits to be moved.
func (t *terminal) drained() bool {
	select {
	case <-t.copied:
		return true
	default:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.console == nil || t.closed {
		return true
	}
	return t.console.file.empty()
}

// close ends copying and closes everything.
func (t *terminal) close() error {
	t.ended()
	t.mu.Lock()
	m, closed := t.console, t.closed
	t.closed = true
	t.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if m != nil {
		errs = append(errs, m.Close())
	}
	if t.stdin != nil {
		errs = append(errs, t.stdin.Close())
	}
	if t.stdout != nil {
		if err := t.stdout.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	t.wg.Wait()
	return errors.Join(errs...)
}
