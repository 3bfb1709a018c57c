package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// idleShims is the number of measured shims.
const idleShims = 10

// memoryScenario measures the private memory of idle shims.
func memoryScenario() scenario {
	return scenario{
		name: "memory", what: fmt.Sprintf("private memory of an idle shim, mean of %d", idleShims), unit: "MiB", rounds: 3,
		targets: []target{{variant: "cleat's shim", limit: 1.3}},
		prepare: prepareMemory,
	}
}

func prepareMemory(ctx context.Context, e *environment) ([]variant, func() error, error) {
	var ids []string
	cleanup := func() (err error) {
		ctx := context.WithoutCancel(ctx)
		for _, id := range ids {
			err1 := e.runToEnd(ctx, e.cleatCommand("rm", "--force", id))
			err2 := e.runToEnd(ctx, e.ctrCommand("tasks", "rm", "--force", id))
			err3 := e.runToEnd(ctx, e.ctrCommand("containers", "rm", id))
			err = errors.Join(err, err1, err2, err3)
		}
		return err
	}
	for range idleShims {
		id := e.nextID("idle")
		ids = append(ids, id)
		for _, argv := range [][]string{
			e.cleatCommand("run", "--detach", "--name", id, imageName, "/bin/sleep", "100000"),
			e.ctrCommand("run", "--detach", imageName, id, "/bin/sleep", "100000"),
		} {
			if _, err := e.timed(ctx, argv); err != nil {
				return nil, nil, errors.Join(err, cleanup())
			}
		}
	}
	return []variant{
		{"cleat's shim", func(context.Context) (float64, error) { return e.shimMemory(e.cleat.address) }},
		{"containerd's shim", func(context.Context) (float64, error) { return e.shimMemory(e.peer.address) }},
	}, cleanup, nil
}

// shimMemory returns the mean private memory, in MiB, of the shims of the daemon at address.
func (e *environment) shimMemory(address string) (float64, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	var sum float64
	var found int
	for _, path := range lines {
		cmdline, err := os.ReadFile(path)
		if err != nil {
			continue // it has exited concurrently
		}
		args := bytes.Split(cmdline, []byte{0})
		if !strings.HasPrefix(filepath.Base(string(args[0])), "containerd-shim-") ||
			!bytes.Contains(cmdline, []byte("\x00-address\x00"+address+"\x00")) {
			continue
		}
		kib, err := privateKiB(filepath.Join(filepath.Dir(path), "smaps_rollup"))
		if err != nil {
			return 0, err
		}
		sum += float64(kib) / 1024
		found++
	}
	if found != idleShims {
		return 0, fmt.Errorf("found %d shims of %s, not %d", found, address, idleShims)
	}
	return sum / float64(found), nil
}

func privateKiB(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "Private_Clean:" || f[0] == "Private_Dirty:") {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", path, err)
			}
			total += n
		}
	}
	return total, nil
}
