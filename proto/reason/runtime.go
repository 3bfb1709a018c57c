package reason

import (
	"fmt"
	"strings"
)

// FromRuntime returns the reason of an error from the message of an OCI runtime: runc, runsc and crun
// report causes in text only. RuntimeFailed stands for everything else. Only the part after the phrase
// by which a runtime introduces the program is read: a mount that fails is not a missing program.
func FromRuntime(message string) Reason {
	text := strings.ToLower(message)
	switch {
	case has(text, "no space left on device", "disk quota exceeded"):
		return DiskFull
	case has(text, "chdir to cwd", "chdir to `"):
		return DirectoryNotFound
	}
	for _, phrase := range []string{
		"exec: ",                      // runc
		"error finding executable ",   // runsc, in PATH
		"failed to load ",             // runsc, by path
		"executable file `", "exec `", // crun
	} {
		at := strings.Index(text, phrase)
		if at < 0 {
			continue
		}
		switch text = text[at:]; {
		case has(text, "not found", "no such file or directory"):
			return CommandNotFound
		case has(text, "permission denied", "is a directory", "exec format error", "not a directory"):
			return CommandNotExecutable
		}
		break
	}
	return RuntimeFailed
}

func has(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// Operation adds an operation and its object to an error, unless the error is the OCI runtime's own, which clients
// match from its beginning.
func Operation(operation string, err error) error {
	if strings.HasPrefix(err.Error(), "OCI runtime ") {
		return err
	}
	return fmt.Errorf("%s: %w", operation, err)
}
