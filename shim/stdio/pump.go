package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
)

// pump moves a process's output from a pipe to the end of a file, in the kernel. The process has
// the pipe only, so that it cannot rewrite what it has logged.
//
// The kernel does not splice to a file opened for appending, so the end is looked up before each
// move: a file that is truncated by a log rotation continues at its new end. A log has one writer;
// two containers logging to one file may overwrite each other.
//
// The pipe of an init is a FIFO in the bundle, which the process has open for reading too: it outlives
// its shim, and waits for the next one when the pipe is full (see Reopen).
//
// While the file cannot be written (a full disk), nothing is dropped: the pump tries again each
// second, and the process waits when its pipe is full.
type pump struct {
	pipe *os.File
	conn syscall.RawConn
	name string // of the FIFO that the pipe is, or ""
	log  Log

	closing chan struct{}
	stopped chan struct{} // closed when run has ended

	mu  sync.Mutex // held while bytes are moved
	out *os.File
}

const (
	pumpChunk = 1 << 20
	pumpRetry = time.Second
	// pumpLimit is how long an exit or a delete waits for a disk.
	pumpLimit = 2 * time.Second
)

// startPump opens the log and a pipe to it, and returns the pipe's writing end. If the process
// may outlive the shim the pipe has a name in the bundle, by which the next shim finds it.
func startPump(env Env, path, name string) (_ *pump, child *os.File, err error) {
	out, err := openLogFile(path)
	if err != nil {
		return nil, nil, err
	}
	var r *os.File
	if env.Bundle == "" {
		name = ""
		r, child, err = anonymousPipe(env)
	} else {
		name = filepath.Join(env.Bundle, name)
		r, child, err = namedPipe(env, name)
	}
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	p, err := newPump(env, r, out, name)
	if err != nil {
		return nil, nil, errors.Join(err, child.Close())
	}
	return p, child, nil
}

// resumePump continues with the named pipe of a dead shim.
func resumePump(env Env, path, name string) (*pump, error) {
	name = filepath.Join(env.Bundle, name)
	r, err := fifo.ReadEnd(name)
	if err != nil {
		return nil, err
	}
	out, err := openLogFile(path)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return newPump(env, r, out, name)
}

// newPump takes over both files, even if it fails.
func newPump(env Env, pipe, out *os.File, name string) (_ *pump, err error) {
	p := &pump{pipe: pipe, name: name, log: env.Log, out: out, closing: make(chan struct{}), stopped: make(chan struct{})}
	if p.conn, err = pipe.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("make pipe: %w", err), out.Close(), pipe.Close())
	}
	go p.run() // close waits for it
	return p, nil
}

func openLogFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of log: %w", err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return out, nil
}

// run moves until all writers are gone or the pump is closed.
func (p *pump) run() {
	defer close(p.stopped)
	warned := false
	for {
		var merr error
		err := p.conn.Read(func(fd uintptr) bool {
			merr = p.move(int(fd), pumpChunk)
			return !errors.Is(merr, unix.EAGAIN)
		})
		switch {
		case err != nil || errors.Is(merr, io.EOF): // closed, or done
			return
		case merr == nil:
			continue
		}
		if !warned {
			p.log.Warnf("write log %s: %v; trying again each second", p.out.Name(), merr)
			warned = true
		}
		if !p.waitClosed() {
			return
		}
	}
}

// waitClosed waits for the next attempt and returns false if the pump was closed before it.
func (p *pump) waitClosed() bool {
	timer := time.NewTimer(pumpRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.closing:
		return false
	}
}

// move moves at most n bytes without waiting: EAGAIN if there are none, io.EOF if there never
// will be.
func (p *pump) move(fd, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		end, err := p.out.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		moved, err := unix.Splice(fd, nil, int(p.out.Fd()), &end, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case moved == 0:
			return io.EOF
		default:
			return nil
		}
	}
}

// flush moves what is in the pipe now; it does not wait for more.
func (p *pump) flush() {
	err := p.conn.Control(func(fd uintptr) {
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for err == nil && left > 0 {
			before := left
			if err = p.move(int(fd), left); err == nil {
				// A process may still be writing: move only what was present at first.
				var now int
				if now, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
					left = min(now, before-1)
				}
			}
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, io.EOF) {
			p.log.Warnf("flush log %s: %v", p.out.Name(), err)
		}
	})
	if err != nil {
		p.log.Debugf("flush log %s: %v", p.out.Name(), err)
	}
}

// close moves what is present, stops and closes both ends. It waits for a hanging disk for at most
// pumpLimit; what is left in the pipe is lost then.
func (p *pump) close() error {
	close(p.closing)
	p.flushWithin(pumpLimit)
	err := p.pipe.Close()
	if p.name != "" {
		err = errors.Join(err, fifo.Remove(p.name))
	}
	timer := time.NewTimer(pumpLimit)
	defer timer.Stop()
	select {
	case <-p.stopped:
		return errors.Join(err, p.out.Close())
	case <-timer.C:
		return errors.Join(err, fmt.Errorf("close log %s: disk does not respond: %w", p.out.Name(), errdefs.ErrUnavailable))
	}
}

// flushWithin is flush with a time limit for a slow disk.
func (p *pump) flushWithin(limit time.Duration) {
	flushed := make(chan struct{})
	go func() { // ends when the disk responds
		defer close(flushed)
		p.flush()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-flushed:
	case <-timer.C:
		p.log.Warnf("flush log %s: the disk takes longer than %v", p.out.Name(), limit)
	}
}
