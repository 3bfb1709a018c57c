package stdio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
)

// Reopen opens what has to stay open or be moved while a process lives whose shim has died. What cannot be opened is
// skipped and part of the error: a container is worth more than its output. It does not open terminals, whose masters
// died with the shim, nor loggers, which own their pipes.
func Reopen(env Env, paths Paths) (*Streams, error) {
	s := &Streams{}
	paths, release, err := paths.pinned()
	if err != nil {
		return s, fmt.Errorf("stdio: %w", err)
	}
	defer release()
	var errs []error
	failed := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	failed("stdin", s.reopenInput(paths.Stdin))
	failed("stdout", s.reopenOutput(1, env, paths.Stdout))
	if paths.Stderr != paths.Stdout {
		failed("stderr", s.reopenOutput(2, env, paths.Stderr))
	}
	return s, errors.Join(errs...)
}

func (s *Streams) reopenInput(uri string) error {
	t, err := parseTarget(uri)
	if err != nil || t.kind != toFIFO {
		return err
	}
	hold, err := fifo.WriteEnd(t.path)
	if errors.Is(err, unix.ENXIO) {
		return nil // the process has closed it
	}
	if err != nil {
		return classFIFO("stdin", err)
	}
	s.stdin = hold
	return nil
}

func (s *Streams) reopenOutput(i int, env Env, uri string) error {
	t, err := parseTarget(uri)
	if err != nil {
		return err
	}
	switch t.kind {
	case toFIFO:
		hold, err := fifo.ReadEnd(t.path)
		if err != nil {
			return classFIFO("output", err)
		}
		s.holds = append(s.holds, hold)
	case toFile:
		p, err := resumePump(env, t.path, pipeName(i))
		if err != nil {
			return classFIFO("pipe of log", err)
		}
		s.pumps = append(s.pumps, p)
	case toNull, toLogger:
	}
	return nil
}
