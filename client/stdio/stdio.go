// Package stdio creates FIFOs for the stdio of a container's process, and copies between them and the
// caller's streams.
//
// A Set is a private directory of FIFOs. The container opens them itself; no byte passes through
// the daemon. The order of calls is
//
//	s, err := stdio.New(root, stdio.Want{Stdout: true, Stderr: true})
//	...                     // Run or Exec with s.Paths
//	s.Started()             // the container holds its ends now
//	s.Copy(stdio.Streams{Out: os.Stdout, Err: os.Stderr})
//	...                     // wait for the process to exit
//	s.Finish(ctx)           // copy the rest of the pipes
//	s.Close()
//
// Guarantees: the output of the process before its exit reaches the writers, even if a child
// that outlives it keeps the pipes open. Close ends every goroutine. A Set whose program died is
// removed by Collect of the next one, once no container has its FIFOs open any more: the directory
// is locked (flock) while its Set is in use.
package stdio

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Names of the FIFOs in a Set's directory.
const (
	stdinName  = "stdin"
	stdoutName = "stdout"
	stderrName = "stderr"
)

// pipeSize is requested from the kernel for each FIFO that the container writes to; it is the maximum of
// an unprivileged pipe.
const pipeSize = 1 << 20

// Want selects the streams that get a FIFO.
type Want struct{ Stdin, Stdout, Stderr bool }

// Paths are the FIFOs of a Set; empty for a stream without one.
type Paths struct{ Stdin, Stdout, Stderr string }

// Set is the client's side of one process's stdio. It is not safe for concurrent use.
type Set struct {
	// Paths to pass to the daemon.
	Paths Paths

	dir     string
	lock    *os.File
	in      *os.File
	outputs map[string]*os.File
	// keepers hold the other end of each FIFO until the container does.
	keepers []*os.File
	feed    *feed
	pumps   []*pump
	broken  chan struct{}
	keep    bool
}

// New creates a directory below root (created if missing, 0700) with the requested FIFOs, and
// opens this side of them.
func New(root string, want Want) (*Set, error) {
	s, err := create(root)
	if err != nil {
		return nil, fmt.Errorf("make stdio below %s: %w", root, err)
	}
	if err := s.open(want); err != nil {
		return nil, errors.Join(fmt.Errorf("make stdio below %s: %w", root, err), s.Close())
	}
	return s, nil
}

// Reserve is New for a process without an attached client so far: the FIFOs exist, this side is not
// open, and Close leaves the directory for a later Open, and finally for Collect.
func Reserve(root string, want Want) (*Set, error) {
	s, err := create(root)
	if err != nil {
		return nil, fmt.Errorf("reserve stdio below %s: %w", root, err)
	}
	if err := s.make(want); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve stdio below %s: %w", root, err), s.Close())
	}
	s.keep = true
	return s, nil
}

// Open opens this side of FIFOs of a running container, to attach to it. While another Set
// is using them it is errdefs.ErrFailedPrecondition; if the container has closed them,
// errdefs.ErrNotFound. Close keeps the files.
func Open(paths Paths) (*Set, error) {
	dir := filepath.Dir(cmp.Or(paths.Stdout, paths.Stderr, paths.Stdin))
	lock, err := lockDir(dir)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("attach to %s: another client is attached: %w", dir, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w: %w", dir, err, errdefs.ErrNotFound)
	}
	s := &Set{Paths: paths, dir: dir, lock: lock, keep: true}
	if err := s.reopen(); err != nil {
		return nil, errors.Join(fmt.Errorf("attach to %s: %w", dir, err), s.Close())
	}
	return s, nil
}

// Abandon makes Close keep the directory if the container keeps running, so that Open can attach to
// it again.
func (s *Set) Abandon() { s.keep = true }

// Discard makes Close remove the directory also for a Set of Reserve or Open.
func (s *Set) Discard() { s.keep = false }

// Started records that the container has opened its ends; from now on the end of its writers is the
// end of its output.
func (s *Set) Started() error {
	err := closeAll(s.keepers)
	s.keepers = nil
	return err
}

// Close stops copying and closes this side; the directory is removed too, unless it is kept. Closing
// twice does nothing.
func (s *Set) Close() error {
	err := s.Started()
	if s.feed != nil {
		s.feed.stop()
	}
	if s.in != nil {
		err = errors.Join(err, ignoreClosed(s.in.Close()))
	}
	for _, p := range s.pumps {
		p.stop()
	}
	for _, f := range s.outputs {
		err = errors.Join(err, ignoreClosed(f.Close()))
	}
	if s.feed != nil {
		s.feed.wait()
	}
	s.in, s.outputs, s.pumps, s.feed = nil, nil, nil, nil
	if s.lock == nil {
		return err
	}
	if !s.keep {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	err = errors.Join(err, s.lock.Close())
	s.lock = nil
	return err
}

// open creates the FIFOs and opens both ends of each: this side to use, the other one to keep until
// Started. Otherwise reading would end before the container has opened its end.
func (s *Set) open(want Want) error {
	if err := s.make(want); err != nil {
		return err
	}
	s.outputs = map[string]*os.File{}
	for _, path := range []string{s.Paths.Stdout, s.Paths.Stderr} {
		if path == "" {
			continue
		}
		if err := s.openOutput(path); err != nil {
			return err
		}
		keeper, err := openFIFO(path, unix.O_WRONLY)
		if err != nil {
			return err
		}
		s.keepers = append(s.keepers, keeper)
	}
	if s.Paths.Stdin == "" {
		return nil
	}
	keeper, err := openFIFO(s.Paths.Stdin, unix.O_RDWR)
	if err != nil {
		return err
	}
	s.keepers = append(s.keepers, keeper)
	s.in, err = openFIFO(s.Paths.Stdin, unix.O_WRONLY)
	return err
}

// reopen opens this side of FIFOs whose other ends a container holds.
func (s *Set) reopen() error {
	s.outputs = map[string]*os.File{}
	for _, path := range []string{s.Paths.Stdout, s.Paths.Stderr} {
		if path == "" {
			continue
		}
		if err := s.openOutput(path); err != nil {
			return err
		}
	}
	if s.Paths.Stdin == "" {
		return nil
	}
	in, err := openFIFO(s.Paths.Stdin, unix.O_WRONLY)
	if errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("open %s: container closed it: %w", s.Paths.Stdin, errdefs.ErrNotFound)
	}
	s.in = in
	return err
}

func (s *Set) openOutput(path string) error {
	f, err := openFIFO(path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	s.outputs[path] = f
	return enlarge(f)
}

// make creates the requested FIFOs in the Set's directory.
func (s *Set) make(want Want) error {
	for _, f := range []struct {
		wanted bool
		name   string
		path   *string
	}{
		{want.Stdin, stdinName, &s.Paths.Stdin},
		{want.Stdout, stdoutName, &s.Paths.Stdout},
		{want.Stderr, stderrName, &s.Paths.Stderr},
	} {
		if !f.wanted {
			continue
		}
		path := filepath.Join(s.dir, f.name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("make fifo %s: %w", path, err)
		}
		*f.path = path
	}
	return nil
}

// openFIFO opens one end without waiting for the other, registered with Go's poller.
func openFIFO(path string, mode int) (*os.File, error) {
	f, err := os.OpenFile(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open fifo: %w", err)
	}
	return f, nil
}

// enlarge requests a bigger pipe; a refusal is not an error.
func enlarge(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("enlarge pipe: %w", err)
	}
	return rc.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize)
	})
}

func closeAll(files []*os.File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
