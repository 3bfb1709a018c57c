// Package stdio connects a container's process to the streams that its client names: FIFOs, files, loggers, and a
// terminal.
//
// Streams that are not a terminal do not pass through the shim: the process has the FIFO itself, a pipe that the
// kernel moves to the end of a log file, or the pipe of a logger process. Streams keeps open what must not end while
// a client is away, until Close. Output for a file that was written before the process ended is in the file once
// Ended returns, unless the disk does not respond within two seconds. The bytes of a terminal are copied.
//
// A process may outlive the shim: the pipes to its log files then have names in the bundle (Env.Bundle), by which
// Reopen finds them.
package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/reaper"
)

// Paths holds the stdio paths of a request.
type Paths struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
	// Owner, if set, is the only user id whose FIFOs are accepted; see owner.go.
	Owner string
}

// Streams is the shim's part of a process's stdio: the files to be inherited, and what has to stay
// open or be moved while the process lives.
type Streams struct {
	child [3]*os.File // for the OCI runtime; nil is /dev/null

	mu    sync.Mutex
	stdin io.Closer // keeps the process from an end of file until CloseIO
	holds []io.Closer
	pumps []*pump
	tty   *terminal
}

// Env holds what opening stdio needs in addition to the paths.
type Env struct {
	Spawner       Spawner  // starts loggers
	Environ       []string // of loggers
	Log           Log
	Namespace, ID string
	UID, GID      uint32 // owner of the pipes that are created
	Bundle        string // directory of named pipes, for a process that may outlive the shim; or ""
}

// Log receives failures that no caller waits for.
type Log interface {
	Warnf(format string, args ...any)
	Debugf(format string, args ...any)
}

// Spawner starts processes and collects them.
type Spawner interface {
	Spawn(cmd *exec.Cmd) (*reaper.Child, error)
}

// target is a parsed stdio URI.
type target struct {
	kind targetKind
	path string
	args url.Values
}

type targetKind uint8

const (
	toNull targetKind = iota
	toFIFO
	toFile
	toLogger
)

// parseTarget reads a path or URI. A bare path is a FIFO, or a file if the path is a regular file.
func parseTarget(s string) (target, error) {
	if s == "" {
		return target{kind: toNull}, nil
	}
	scheme, path, ok := strings.Cut(s, "://")
	if !ok {
		if !strings.HasPrefix(s, "/") {
			return target{}, fmt.Errorf("stdio %q: want an absolute path: %w", s, errdefs.ErrInvalidArgument)
		}
		if fi, err := os.Stat(s); err == nil && fi.Mode().IsRegular() {
			return target{kind: toFile, path: s}, nil
		}
		return target{kind: toFIFO, path: s}, nil
	}
	kinds := map[string]targetKind{"fifo": toFIFO, "file": toFile, "binary": toLogger}
	kind, ok := kinds[scheme]
	if !ok || !strings.HasPrefix(path, "/") {
		return target{}, fmt.Errorf("stdio %q: want a path, fifo://, file:// or binary:// with an absolute path: %w", s, errdefs.ErrInvalidArgument)
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("stdio %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	return target{kind: kind, path: u.Path, args: u.Query()}, nil
}

// Open opens everything, or nothing. For a terminal, Attach follows once the runtime has sent
// the console.
func Open(ctx context.Context, env Env, paths Paths) (_ *Streams, err error) {
	s := &Streams{}
	paths, release, err := paths.pinned()
	if err != nil {
		return nil, err
	}
	defer release()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	u.Push("close stdio", s.Close)
	in, err := parseTarget(paths.Stdin)
	if err != nil {
		return nil, err
	}
	if in.kind != toNull && in.kind != toFIFO {
		return nil, fmt.Errorf("stdin %q: want a FIFO: %w", paths.Stdin, errdefs.ErrInvalidArgument)
	}
	if paths.Terminal {
		err = s.openTerminal(ctx, env, in, paths)
	} else {
		err = s.openPlain(ctx, env, in, paths)
	}
	if err != nil {
		return nil, err
	}
	u.Release()
	return s, nil
}

func (s *Streams) openPlain(ctx context.Context, env Env, in target, paths Paths) error {
	if in.kind == toFIFO {
		hold, child, err := fifo.Source(in.path)
		if err != nil {
			return classFIFO("stdin", err)
		}
		s.stdin, s.child[0] = hold, child
	}
	out, err := parseTarget(paths.Stdout)
	if err != nil {
		return err
	}
	if out.kind == toLogger {
		return s.openLogger(ctx, env, out, paths.Stderr == paths.Stdout)
	}
	if err := s.openOutput(1, env, out); err != nil {
		return err
	}
	if paths.Stderr == paths.Stdout {
		s.child[2] = s.child[1] // one description, so that the order is kept
		return nil
	}
	errTarget, err := parseTarget(paths.Stderr)
	if err != nil {
		return err
	}
	if errTarget.kind == toLogger {
		return fmt.Errorf("stderr %q: a logger takes stdout and stderr: %w", paths.Stderr, errdefs.ErrInvalidArgument)
	}
	return s.openOutput(2, env, errTarget)
}

func (s *Streams) openOutput(i int, env Env, t target) error {
	switch t.kind {
	case toFIFO:
		hold, child, err := fifo.Sink(t.path)
		if err != nil {
			return classFIFO("output", err)
		}
		s.holds = append(s.holds, hold)
		s.child[i] = child
	case toFile:
		p, child, err := startPump(env, t.path, pipeName(i))
		if err != nil {
			return err
		}
		s.pumps = append(s.pumps, p)
		s.child[i] = child
	case toNull, toLogger:
	}
	return nil
}

// pipeName returns the name in the bundle of the pipe between descriptor i and its log.
func pipeName(i int) string {
	if i == 1 {
		return "log.out"
	}
	return "log.err"
}

func (s *Streams) openLogger(ctx context.Context, env Env, t target, both bool) error {
	out, errs, err := startLogger(ctx, env, t)
	if err != nil {
		return err
	}
	s.child[1] = out
	if both {
		s.child[2] = errs
		return nil
	}
	return errs.Close()
}

func classFIFO(what string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open %s: %w: %w", what, err, errdefs.ErrNotFound)
	case errors.Is(err, fifo.ErrNotFIFO):
		return fmt.Errorf("open %s: %w: %w", what, err, errdefs.ErrInvalidArgument)
	default:
		return fmt.Errorf("open %s: %w", what, err)
	}
}

// Files returns the files for the process to inherit, by descriptor; nil is /dev/null. They are open until HandOver.
func (s *Streams) Files() [3]*os.File { return s.child }

// HandOver closes the files that were to be inherited: from now on only the process causes ends of
// file.
func (s *Streams) HandOver() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handOverLocked()
}

func (s *Streams) handOverLocked() error {
	var errs []error
	for i, f := range s.child {
		if f != nil && (i != 2 || f != s.child[1]) {
			errs = append(errs, f.Close())
		}
	}
	s.child = [3]*os.File{}
	return errors.Join(errs...)
}

// CloseStdin lets the process see the end of its stdin once the client has closed it too.
func (s *Streams) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil {
		return nil
	}
	err := s.stdin.Close()
	s.stdin = nil
	return err
}

// Ended marks the process as exited: its output is moved as far as possible without waiting.
func (s *Streams) Ended() {
	s.mu.Lock()
	pumps, tty := s.pumps, s.tty
	s.mu.Unlock()
	for _, p := range pumps {
		p.flushWithin(pumpLimit)
	}
	if tty != nil {
		tty.ended()
	}
}

// drain checks every drainTick, and waits for output that does not move for drainTicks of them: half a second, or
// more if this process is not scheduled.
const (
	drainTick  = 5 * time.Millisecond
	drainTicks = 100
)

// Drain waits until all output of the process has been moved; it gives up as soon as nothing has
// moved for a while: a process holds the other end and neither reads nor closes it.
func (s *Streams) Drain() {
	s.mu.Lock()
	tty := s.tty
	s.mu.Unlock()
	if tty == nil {
		return // pumps were flushed when the process ended
	}
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	moved := tty.moved.Load()
	for still := 0; still < drainTicks && !tty.drained(); still++ {
		select {
		case <-tty.copied:
			return
		case <-tick.C:
		}
		if n := tty.moved.Load(); n != moved {
			moved, still = n, 0
		}
	}
}

// Close releases everything. Idempotent.
func (s *Streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.handOverLocked()}
	if s.tty != nil {
		errs = append(errs, s.tty.close())
		s.tty = nil
	}
	if s.stdin != nil {
		errs = append(errs, s.stdin.Close())
		s.stdin = nil
	}
	for _, p := range s.pumps {
		errs = append(errs, p.close())
	}
	for _, h := range s.holds {
		errs = append(errs, h.Close())
	}
	s.pumps, s.holds = nil, nil
	return errors.Join(errs...)
}
