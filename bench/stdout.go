package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stdoutScenario makes a container write 2 GB to the command line, whose own stdout is /dev/null,
// and times the writer.
func stdoutScenario() scenario {
	return scenario{
		name: "stdout", what: "rate at which a process can write 2 GB of output", unit: "MB/s", rounds: 7, moreWins: true,
		targets: []target{{variant: "cleat run", base: "bare FIFO", limit: 0.9}},
		prepare: func(_ context.Context, e *environment) ([]variant, func() error, error) {
			return []variant{
				{"bare FIFO", e.bareFIFO},
				{"cleat run", func(ctx context.Context) (float64, error) {
					return e.rate(ctx, e.cleatCommand(append([]string{"run", "--rm", imageName}, script()...)...))
				}},
				{"ctr run", func(ctx context.Context) (float64, error) {
					return e.rate(ctx, e.ctrCommand(append([]string{"run", "--rm", imageName, e.nextID("dd")}, script()...)...))
				}},
			}, nil, nil
		},
	}
}

// written is the number of bytes that the process writes.
const written = 30518 * 65536

// script writes, and reports on stderr when it starts and ends: starting a container does
// not count.
func script() []string {
	return []string{"sh", "-c", "echo begin >&2; dd if=/dev/zero bs=65536 count=30518 2>/dev/null; echo done >&2"}
}

// rate runs a command whose process is the script. Its stdout goes to /dev/null.
func (e *environment) rate(ctx context.Context, argv []string) (float64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	report, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var at []time.Time
	var text strings.Builder
	lines := bufio.NewScanner(report)
	for lines.Scan() {
		at = append(at, time.Now())
		text.WriteString(lines.Text() + "\n")
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return 0, fmt.Errorf("%v: %w: %s", argv, err, text.String())
	}
	if text.String() != "begin\ndone\n" {
		return 0, fmt.Errorf("%v: want begin and done: %s", argv, text.String())
	}
	return written / at[1].Sub(at[0]).Seconds() / 1e6, nil
}

// bareFIFO runs the same script and a cat, with only a FIFO between them.
func (e *environment) bareFIFO(ctx context.Context) (float64, error) {
	path := filepath.Join(e.dir, e.nextID("fifo"))
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return 0, err
	}
	reader := exec.CommandContext(ctx, "busybox", "cat", path)
	if err := reader.Start(); err != nil {
		return 0, err
	}
	v, err := e.rate(ctx, append([]string{"sh", "-c", `exec busybox "$@" >"$0"`, path}, script()...))
	return v, errors.Join(err, reader.Wait(), os.Remove(path))
}
