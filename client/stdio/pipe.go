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

// readerPoll is the interval at which a Pipe checks for its reader, and readerGrace how long a reader
// of an incomplete stream has to leave.
const (
	readerPoll  = 2 * time.Millisecond
	readerGrace = time.Second
)

// Pipe carries bytes to one other program on this host, at the speed of that program: a private
// FIFO, whose path the reader gets. Nothing is left if this program dies once the
// reader has opened it; before, Collect removes it. Send and then Close it, possibly in different goroutines.
type Pipe struct {
	// Path for the reader to open.
	Path string

	set *Set
	out *os.File
	// sent reports that the reader got everything and the end.
	sent bool
}

// NewPipe creates a FIFO below root (created if missing, 0700).
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

// Send waits for the reader, copies in to it up to its end, and closes the writing end. It returns early
// with ctx, or with unix.EPIPE if the reader leaves before; any other error is one of in. If
// in is an *os.File a blocked read is interrupted, a read of any other blocks the call. It may be called once.
func (p *Pipe) Send(ctx context.Context, in io.Reader) error {
	if err := p.connect(ctx); err != nil {
		return fmt.Errorf("wait for the reader of %s: %w", p.Path, err)
	}
	// Both ends are open, and the name is not needed any more.
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
		_ = p.out.SetWriteDeadline(time.Unix(1, 0)) // a pipe supports it
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

// Close removes the FIFO. If the reader did not get everything, it must have been notified by then: it
// has a second to leave, so that it does not mistake the loss of its writer for the end of the data.
func (p *Pipe) Close() error {
	err := p.set.Close()
	if p.out == nil || p.sent {
		return err
	}
	p.awaitLeave()
	return errors.Join(err, ignoreClosed(p.out.Close()))
}

// awaitLeave waits a limited time until there is no reader.
func (p *Pipe) awaitLeave() {
	rc, err := p.out.SyscallConn()
	if err != nil || p.out.SetWriteDeadline(time.Now().Add(readerGrace)) != nil {
		return
	}
	_ = rc.Write(func(fd uintptr) bool { // fails when the time is over
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := ignoringEINTR(func() (int, error) { return unix.Poll(fds, 0) })
		return err != nil || fds[0].Revents&unix.POLLERR != 0
	})
}
