package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
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
		code = runCode(err)
	}
	text := "cleat: " + oneLine(err) + "\n"
	if hint := hintFor(err); hint != "" {
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

// runCode tells apart, by the runtime's message, a program that is not there from one that cannot
// be run.
func runCode(err error) int {
	text := err.Error()
	at := strings.Index(text, "exec: ")
	if at < 0 {
		return codeOwnFailure
	}
	text = text[at:]
	switch {
	case noDirectory(err):
		return codeCannotInvoke
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return codeNotFound
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"),
		strings.Contains(text, "exec format error"):
		return codeCannotInvoke
	}
	return codeOwnFailure
}

// hintFor says what to do about an error: what the place it came from said, else what its class
// suggests.
func hintFor(err error) string {
	var h *hintError
	if errors.As(err, &h) {
		return h.hint
	}
	text := err.Error()
	switch code := runCode(err); {
	case noDirectory(err):
		return "the working directory must exist in the container; run makes it, exec does not"
	case code == codeNotFound:
		return "the program must exist in the image, at the path given or in its PATH"
	case code == codeCannotInvoke:
		return "the program must be an executable file for this machine"
	case diskFull(err):
		return "make room: cleat image usage tells what images take; cleat image rm, cleat image prune and cleat gc remove some"
	case errdefs.IsUnavailable(err) && strings.Contains(text, "connect to "):
		return "is cleatd running? Start it, or name its socket with --address or CLEAT_ADDRESS"
	case errdefs.IsUnavailable(err):
		return "the daemon went away meanwhile; try again, and see its log if it keeps happening"
	case errdefs.IsNotFound(err):
		return hintWhere(text)
	case errdefs.IsPermissionDenied(err):
		return "cleat needs the rights of root"
	}
	return ""
}

// hintWhere says where to look for what there is, by the message that says what there is not. A file that
// the runtime misses is named there already.
func hintWhere(text string) string {
	switch {
	case strings.Contains(text, "OCI runtime"), strings.Contains(text, "open root file system"):
		return ""
	case strings.Contains(text, "passwd file"), strings.Contains(text, "group file"), strings.Contains(text, "in the container"):
		return "a name must be in the image's /etc/passwd or /etc/group; a number need not"
	case strings.Contains(text, "image"):
		return "cleat image ls lists the images of a namespace; cleat pull IMAGE fetches one, cleat image import FILE adds one"
	case strings.Contains(text, ": namespace \""):
		return "cleat namespace ls lists the namespaces"
	}
	return "cleat ps --all lists the containers of a namespace; --namespace picks another"
}

// noDirectory tells of a process whose working directory is not there.
func noDirectory(err error) bool { return strings.Contains(err.Error(), "chdir to cwd") }

// diskFull tells of a disk, the daemon's or another, that has no room left.
func diskFull(err error) bool {
	return strings.Contains(err.Error(), syscall.ENOSPC.Error()) || strings.Contains(err.Error(), syscall.EDQUOT.Error())
}
