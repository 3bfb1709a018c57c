package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// exitCode ends the program with a code and without a message; mostly a container's exit code.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// hintError is an error with a hint: what the user can do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func hinted(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hintError{err: err, hint: hint}
}

// usage adds the hint of a usage error, which refers to the help of the command.
func usage(command string, err error) error {
	return hinted(err, "run '"+command+" --help' for usage")
}

// Exit codes of run, exec and attach for failures outside the container, as in Docker.
const (
	codeOwnFailure    = 125
	codeCannotInvoke  = 126
	codeNotFound      = 127
	codeSignalledBase = 128
)

// fail prints an error and its hint and returns the exit code; nil is 0.
func (a *app) fail(err error, code int) int {
	var exit exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, new(hangup)):
		return codeSignalledBase + int(syscall.SIGHUP) // stderr has no reader
	}
	if code == codeOwnFailure {
		code = adviceFor(err).code()
	}
	text := "cleat: " + oneLine(err) + "\n"
	if hint := adviceFor(err).hint; hint != "" {
		text += "hint: " + hint + "\n"
	}
	_, _ = a.stderr.WriteString(text) // an error of stderr cannot be reported
	return code
}

// oneLine joins the lines of an error, shortens generated ids, and replaces control characters: errors quote OCI
// runtimes, images, archives and registries.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		lines[i] = withoutClass(l)
	}
	words := strings.SplitAfter(printable(strings.Join(lines, "; ")), " ")
	for i, w := range words {
		if id := strings.TrimRight(w, ":;,. "); len(id) == 64 {
			words[i] = shortID(id) + w[len(id):]
		}
	}
	return strings.Join(words, "")
}

// withoutClass removes the class at the end of an error's text if it adds nothing: the class of a wrong argument or
// state, which the text describes, or one that stands there twice.
func withoutClass(text string) string {
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition} {
		text = strings.TrimSuffix(text, ": "+class.Error())
	}
	for _, class := range []error{errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrUnavailable, errdefs.ErrPermissionDenied} {
		suffix := ": " + class.Error()
		if short, ok := strings.CutSuffix(text, suffix); ok && strings.HasSuffix(short, suffix) {
			text = short
		}
	}
	return text
}
