package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Ctr runs a command of containerd's client.
func (d *Daemon) Ctr(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command("ctr", append([]string{"--address", d.Address, "--namespace", "default"}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Command returns the CLI with arguments, not started.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(Binary("cleat"), args...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	return cmd
}

// Try runs the CLI until it exits.
func (d *Daemon) Try(args ...string) (stdout, stderr string, code int) {
	d.T.Helper()
	return d.TryInput("", args...)
}

// TryInput is Try with a standard input.
func (d *Daemon) TryInput(input string, args ...string) (stdout, stderr string, code int) {
	d.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, Binary("cleat"), args...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		d.T.Fatalf("cleat %q hangs; stdout %q, stderr %q\n%s", args, out.String(), errOut.String(), d.Log())
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		d.T.Fatal(err)
	}
	return out.String(), errOut.String(), code
}

// Cleat runs the CLI, which must succeed, and returns its trimmed output.
func (d *Daemon) Cleat(args ...string) string {
	d.T.Helper()
	stdout, stderr, code := d.Try(args...)
	if code != 0 {
		d.T.Fatalf("cleat %q: code %d\nstdout: %s\nstderr: %s\n%s", args, code, stdout, stderr, d.Log())
	}
	return strings.TrimSpace(stdout)
}

// InOrder returns an error unless s contains the texts one after the other.
func InOrder(s string, texts ...string) error {
	rest := s
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			return fmt.Errorf("%q is missing or out of order in:\n%s", text, s)
		}
		rest = after
	}
	return nil
}

// CtrLists returns an error unless a command of ctr prints this number of words.
func (d *Daemon) CtrLists(n int, args ...string) error {
	out, err := exec.Command("ctr", append([]string{"--address", d.Address, "--namespace", "default"}, args...)...).CombinedOutput()
	if got := len(strings.Fields(string(out))); err != nil || got != n {
		return fmt.Errorf("%d, want %d: %s: %w", got, n, out, err)
	}
	return nil
}

// CheckHint checks the exit code of a command and that its last line is a hint that contains hint.
func CheckHint(t *testing.T, what, stderr string, code, wantCode int, hint string) {
	t.Helper()
	_, got, ok := strings.Cut(stderr, "\nhint: ")
	if code != wantCode || ok != (hint != "") || !strings.Contains(got, hint) {
		t.Errorf("%s: code %d, want %d with the hint %q: %s", what, code, wantCode, hint, stderr)
	}
}

// ExitCode returns the code in an error of Wait.
func ExitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	Must(t, err)
	return 0
}
