// Package undo is a stack of clean-up steps for work done in several steps.
//
// Each step that succeeded pushes the function that undoes it; if a later one fails,
// Run undoes all of them, the last one first. On success Release discards them:
//
//	var u undo.Stack
//	defer func() { err = errors.Join(err, u.Run()) }()
//	...
//	u.Push("remove bundle", bundle.Remove)
//	...
//	u.Release()
//	return nil
//
// Steps that must also run after the request was cancelled should not use the request's
// context: see Context.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stack holds the steps. The zero value is empty and ready. It is not safe for concurrent
// use.
type Stack struct {
	steps []step
}

type step struct {
	what string
	f    func() error
}

// Push adds a step. what describes f in a few words ("unmount rootfs"); it appears
// in the error.
func (s *Stack) Push(what string, f func() error) {
	s.steps = append(s.steps, step{what, f})
}

// Run runs every step, the last pushed first, each even if others failed, and empties the
// stack. It returns the joined errors. On an empty or released stack it does nothing.
func (s *Stack) Run() error {
	var errs []error
	for len(s.steps) > 0 {
		last := s.steps[len(s.steps)-1]
		s.steps = s.steps[:len(s.steps)-1]
		if err := last.f(); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", last.what, err))
		}
	}
	return errors.Join(errs...)
}

// Release discards all steps: the work is complete.
func (s *Stack) Release() { s.steps = nil }

// limit bounds a context of Context.
const limit = 30 * time.Second

// Context returns a context for steps that the end of the request must not cancel. It ends after 30
// seconds.
func Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// Ignore returns nil for an error of the class, which means that there is nothing left to do, and
// any other error as it is.
func Ignore(err, class error) error {
	if errors.Is(err, class) {
		return nil
	}
	return err
}
