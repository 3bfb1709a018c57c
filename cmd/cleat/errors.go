package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// exitCode is the end of the program with a code and without a message: a container's code, mostly.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// hintError is an error that knows what the user can do about it.
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

func usage(command string, err error) error {
	return hinted(err, command+" --help tells about its flags and arguments")
}

// Codes of `run` and `exec` that do not come from the container, as in Docker.
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
		return codeSignalledBase + int(syscall.SIGHUP) // there is nobody to tell
	}
	if code == codeOwnFailure {
		code = adviceFor(err).code()
	}
	text := "cleat: " + oneLine(err) + "\n"
	if hint := adviceFor(err).hint; hint != "" {
		text += "hint: " + hint + "\n"
	}
	_, _ = a.stderr.WriteString(text) // there is nobody else to tell
	return code
}

// printed writes text to stdout and returns the exit code of having done so.
func (a *app) printed(text string) int {
	if _, err := a.stdout.WriteString(text); err != nil {
		return a.fail(writing(err), 1)
	}
	return 0
}

// oneLine joins the lines that a runtime's message may have, shortens made-up ids, and takes out what a
// terminal would obey: images, archives and registries are quoted in errors.
func oneLine(err error) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	words := strings.SplitAfter(printable(text), " ")
	for i, w := range words {
		if id := strings.TrimRight(w, ":;,. "); len(id) == 64 {
			words[i] = shortID(id) + w[len(id):]
		}
	}
	return strings.Join(words, "")
}
