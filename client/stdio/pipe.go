package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readerPoll is how often a Pipe looks whether its reader has come, and readerGrace how long one
// that was not sent everything is given to leave.
const (
	readerPoll  = 2 * time.Millisecond
	readerGrace = time.Second
)

// Pipe carries bytes to one other program on this host, at the speed of that program: a private
// FIFO, of which a reader is told the path. Nothing of it is left where this program dies once the
// reader has come; before, Collect removes it. Send and then Close it, in one goroutine or another.
type Pipe struct {
	// Path that the reader is to open.
	Path string

	set *Set
	out *os.File
	// sent says that the reader was given everything and the end.
	sent bool
}

// NewPipe makes a FIFO below root (made where missing, 0700).
func NewPipe(root string) (*Pipe, error) {
	set, err := create(root)
	if err != nil {
		return nil, fmt.Errorf("make pipe below %s: %w", root, err)
	}
	if err := set.make(Want{Stdin: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe below %s: %w", root, err), set.Close())
	}
	return &Pipe{Path: set.Paths.Stdin, set: set}, nil
}

// Send waits for the reader, copies in to it up to its end, and gives it the end. It returns early
// with ctx, or with unix.EPIPE where the reader leaves before; any other error is one of in. Where
// in is an *os.File a read that waits is interrupted, any other is waited for. Call it once.
func (p *Pipe) Send(ctx context.Context, in io.Reader) error {
	if err := p.connect(ctx); err != nil {
		return fmt.Errorf("wait for the reader of %s: %w", p.Path, err)
	}
	// Both ends are open, and nobody else needs the name.
	if err := p.set.Close(); err != nil {
		return fmt.Errorf("remove pipe: %w", err)
	}
	if err := enlarge(p.out); err != nil {
		return err
	}
	if err := p.copy(ctx, newInput(in)); err != nil {
		return err
	}
	p.sent = true
	return p.out.Close()
}

// connect opens the writing end as soon as there is a reader.
func (p *Pipe) connect(ctx context.Context) error {
	tick := time.NewTicker(readerPoll)
	defer tick.Stop()
	for {
		out, err := openFIFO(p.Path, unix.O_WRONLY)
		if err == nil {
			p.out = out
			return nil
		}
		if !errors.Is(err, unix.ENXIO) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Pipe) copy(ctx context.Context, in *input) error {
	defer in.close()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		in.stop()
		_ = p.out.SetWriteDeadline(time.Unix(1, 0)) // a pipe takes one
	})
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	buf := make([]byte, buffer)
	for {
		in.ready()
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(buf)
		if n > 0 {
			if _, werr := p.out.Write(buf[:n]); werr != nil {
				return errors.Join(ctx.Err(), werr)
			}
		}
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN):
		case errors.Is(err, io.EOF):
			return ctx.Err()
		default:
			return err
		}
	}
}

// Close removes the FIFO. A reader that was not sent everything must have been told so by then: it
// is given a second to leave, lest it takes the loss of its writer for the end of the bytes.
func (p *Pipe) Close() error {
	err := p.set.Close()
	if p.out == nil || p.sent {
		return err
	}
	p.awaitLeave()
	return errors.Join(err, ignoreClosed(p.out.Close()))
}

// awaitLeave waits a while until nobody reads.
func (p *Pipe) awaitLeave() {
	rc, err := p.out.SyscallConn()
	if err != nil || p.out.SetWriteDeadline(time.Now().Add(readerGrace)) != nil {
		return
	}
	_ = rc.Write(func(fd uintptr) bool { // it fails when the time is over
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := ignoringEINTR(func() (int, error) { return unix.Poll(fds, 0) })
		return err != nil || fds[0].Revents&unix.POLLERR != 0
	})
}
