// Package identifier checks and generates the names of containers, processes, namespaces and sandboxes.
package identifier

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/containerd/errdefs"
)

// MaxLength is the maximal length of an identifier, in bytes.
const MaxLength = 76

// Check checks an identifier: letters and digits, in groups joined by one of "-", "_" and ".", at most MaxLength
// bytes. Such a name is safe as a file name. The error is an invalid argument.
func Check(id string) error {
	if id == "" {
		return fmt.Errorf("identifier is empty: %w", errdefs.ErrInvalidArgument)
	}
	if len(id) > MaxLength {
		return fmt.Errorf("identifier %q is longer than %d characters: %w", id[:MaxLength], MaxLength, errdefs.ErrInvalidArgument)
	}
	joined := true // no separator is allowed here
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			joined = false
		case (c == '-' || c == '_' || c == '.') && !joined:
			joined = true
		default:
			return malformed(id)
		}
	}
	if joined {
		return malformed(id)
	}
	return nil
}

func malformed(id string) error {
	return fmt.Errorf("identifier %q: want letters and digits, in groups joined by one of - _ and .: %w", id, errdefs.ErrInvalidArgument)
}

// New returns a container id in Docker's form: 64 hexadecimal digits.
func New() string { return Random(32) }

// Random returns n random bytes in hexadecimal digits.
func Random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
