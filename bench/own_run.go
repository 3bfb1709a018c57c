package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const (
	runDir = "/run"
	// inOwnRun is set for the program that withOwnRun starts.
	inOwnRun   = "CLEAT_BENCH_IN_OWN_RUN"
	tmpfsMagic = 0x01021994 // TMPFS_MAGIC of linux/magic.h
)

// needsOwnRun reports whether this machine has /run on a disk. No distribution does, and all
// programs that are compared keep the state of their containers there: bundles, runc's, files synced at an exit.
func needsOwnRun() (bool, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(runDir, &fs); err != nil {
		return false, &os.PathError{Op: "statfs", Path: runDir, Err: err}
	}
	return fs.Type != tmpfsMagic, nil
}

// withOwnRun runs this program again, in a mount namespace of its own with a tmpfs on /run, and returns its
// exit code. Signals reach it directly, as it is in the same process group.
func withOwnRun(ctx context.Context) (int, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inOwnRun+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // which makes all mounts private
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run with a /run of its own: %w", err)
	}
	return 0, nil
}

// mountOwnRun is called in that program.
func mountOwnRun() error {
	if err := syscall.Mount("tmpfs", runDir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", runDir, err)
	}
	return nil
}
