package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long Finish waits for more output of children that outlive the process.
const grace = 500 * time.Millisecond

// chunk is the maximum of one splice, and buffer that of one read.
const (
	chunk  = 1 << 20
	buffer = 64 << 10
)

// Streams are the caller's side. A nil one is not copied.
type Streams struct {
	// In is read to its end. If it is an *os.File, Close interrupts a blocked read; for any
	// other, Close waits for that read to return.
	In io.Reader
	// InEnd is called once In has ended and the FIFO is closed: the point to call CloseIO.
	InEnd func()
	// Out and Err are written to. Writes to a pipe are done by the kernel; both may be
	// the same file.
	Out, Err io.Writer
}

// Copy starts copying. It may be called once.
func (s *Set) Copy(streams Streams) {
	s.broken = make(chan struct{})
	report := sync.OnceFunc(func() { close(s.broken) })
	if s.in != nil && streams.In != nil {
		s.feed = startFeed(streams.In, s.in, streams.InEnd)
	}
	for path, dst := range map[string]io.Writer{s.Paths.Stdout: streams.Out, s.Paths.Stderr: streams.Err} {
		if f := s.outputs[path]; f != nil && dst != nil {
			s.pumps = append(s.pumps, startPump(f, dst, report))
		}
	}
}

// Broken is closed when a stream could not be written to; nil before Copy. The caller that waits for the
// process may want to end it.
func (s *Set) Broken() <-chan struct{} { return s.broken }

// Finish is called once the process has exited: it copies the data left in the pipes and returns at their
// end, or when nothing has come for half a second because a child holds them open, or with ctx. The
// error is the first of writing to the streams.
func (s *Set) Finish(ctx context.Context) error {
	for _, p := range s.pumps {
		p.finish()
	}
	var errs error
	for _, p := range s.pumps {
		select {
		case <-p.done:
			errs = errors.Join(errs, p.err)
		case <-ctx.Done():
			return fmt.Errorf("copy output: %w", ctx.Err())
		}
	}
	return errs
}

// pump moves one FIFO's bytes to a writer until its end.
type pump struct {
	src       *os.File
	dst       io.Writer
	splice    bool
	buf       []byte
	finishing atomic.Bool
	done      chan struct{}
	// report is called once with an error, which then is err.
	report func()
	err    error
}

func startPump(src *os.File, dst io.Writer, report func()) *pump {
	p := &pump{src: src, dst: dst, splice: spliceable(dst), report: report, done: make(chan struct{})}
	go p.run()
	return p
}

// spliceable reports whether the kernel may move bytes to dst. It may not if dst has a position: stdout and
// stderr, of this program or of several, may be one open file, and unlike write(2), splice(2) does
// not lock the position that they share, so that one would overwrite the other.
func spliceable(dst io.Writer) bool {
	f, ok := dst.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) != 0
}

func (p *pump) run() {
	defer close(p.done)
	rc, err := p.src.SyscallConn()
	if err == nil {
		err = p.copy(rc)
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		p.err = fmt.Errorf("copy output: %w", err)
		p.report()
	}
}

func (p *pump) copy(rc syscall.RawConn) error {
	for {
		n, err := p.wait(rc)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return p.drain(rc)
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		if p.finishing.Load() {
			if err := p.src.SetReadDeadline(time.Now().Add(grace)); err != nil {
				return err
			}
		}
	}
}

// wait moves a chunk once there is one; 0 means the end.
func (p *pump) wait(rc syscall.RawConn) (n int, err error) {
	rerr := rc.Read(func(fd uintptr) bool {
		n, err = p.move(int(fd))
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// drain moves the available data and does not wait for more.
func (p *pump) drain(rc syscall.RawConn) error {
	for {
		var n int
		var err error
		cerr := rc.Control(func(fd uintptr) { n, err = p.move(int(fd)) })
		switch {
		case cerr != nil:
			return cerr
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		case n == 0:
			return nil
		}
	}
}

// move moves one chunk from the FIFO fd; unix.EAGAIN if there is none.
func (p *pump) move(fd int) (int, error) {
	if p.splice {
		n, err := p.moveInKernel(fd)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EAGAIN): // or dst is a full pipe, which a write can wait for
		case errors.Is(err, unix.EINVAL):
			p.splice = false // a terminal
		default:
			return 0, err
		}
	}
	if p.buf == nil {
		p.buf = make([]byte, buffer)
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, p.buf) })
	if n <= 0 || err != nil {
		return 0, err
	}
	if _, err := p.dst.Write(p.buf[:n]); err != nil {
		return 0, err
	}
	return n, nil
}

func (p *pump) moveInKernel(fd int) (n int, err error) {
	rc, err := p.dst.(*os.File).SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(out uintptr) {
		n, err = ignoringEINTR(func() (int, error) {
			moved, err := unix.Splice(fd, nil, int(out), nil, chunk, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			return int(moved), err
		})
	})
	if cerr != nil {
		return 0, cerr
	}
	return n, err
}

// finish ends the pump when nothing has come for a while.
func (p *pump) finish() {
	p.finishing.Store(true)
	_ = p.src.SetReadDeadline(time.Now().Add(grace)) // an error means that it is closed
}

// stop ends the pump at once.
func (p *pump) stop() {
	_ = p.src.Close() // closed again by the Set, which reports errors
	<-p.done
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
