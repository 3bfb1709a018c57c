package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
)

// maxPassword bounds a password, in bytes.
const maxPassword = 64 << 10

// readPassword reads a line from stdin, without echo if stdin is a terminal.
func (a *app) readPassword() (password string, err error) {
	stdin, terr := openConsole(a.stdin)
	if terr == nil {
		if _, err := a.stderr.WriteString("Password: "); err != nil {
			return "", fmt.Errorf("ask for a password: %w", err)
		}
		if err := stdin.DisableEcho(); err != nil {
			return "", fmt.Errorf("ask for a password: %w", err)
		}
		defer func() {
			_, _ = a.stderr.WriteString("\n")
			err = errors.Join(err, stdin.Reset())
		}()
	}
	var line []byte
	one := make([]byte, 1) // what follows the line is left in stdin
	for len(line) < maxPassword {
		n, err := a.stdin.Read(one)
		if n > 0 && one[0] != '\n' {
			line = append(line, one[0])
		}
		if n > 0 && one[0] == '\n' || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
	}
	if password = strings.TrimSuffix(string(line), "\r"); password == "" {
		return "", fmt.Errorf("read password: no password on stdin: %w", errdefs.ErrInvalidArgument)
	}
	return password, nil
}
