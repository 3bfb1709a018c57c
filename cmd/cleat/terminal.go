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
)

// terminal is the user's terminal, where stdin or stdout is one.
type terminal struct {
	input  console.Console
	output console.Console
	raw    bool
}

// openTerminal looks at the streams. A process with a terminal and stdin needs one here too.
func (a *app) openTerminal(p *processFlags) (*terminal, error) {
	t := &terminal{}
	if !p.tty || p.detach {
		return t, nil
	}
	if c, err := console.ConsoleFromFile(a.stdin); err == nil {
		t.input = c
	}
	if c, err := console.ConsoleFromFile(a.stdout); err == nil {
		t.output = c
	}
	if p.interactive && t.input == nil {
		return nil, hinted(fmt.Errorf("connect terminal: stdin is not one: %w", errdefs.ErrFailedPrecondition),
			"leave -t out to send input from a file or a pipe")
	}
	return t, nil
}

// makeRaw hands every key to the container; restore undoes it.
func (t *terminal) makeRaw() error {
	if t.input == nil {
		return nil
	}
	if err := t.input.SetRaw(); err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	t.raw = true
	return nil
}

// restore gives the terminal back as it was. Restoring twice does nothing.
func (t *terminal) restore() error {
	if !t.raw {
		return nil
	}
	t.raw = false
	if err := t.input.Reset(); err != nil {
		return hinted(fmt.Errorf("restore terminal: %w", err), "the command reset makes the terminal usable again")
	}
	return nil
}

// size is that of the window; ok is false where there is no terminal.
func (t *terminal) size() (width, height uint32, ok bool) {
	for _, c := range []console.Console{t.output, t.input} {
		if c == nil {
			continue
		}
		if s, err := c.Size(); err == nil && s.Width > 0 && s.Height > 0 {
			return uint32(s.Width), uint32(s.Height), true
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
