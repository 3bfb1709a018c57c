package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
)

// doctorCommand runs `cleatd doctor`, which knows the files of the daemon and works while no daemon runs.
func doctorCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor [FLAGS]", Short: "check and repair the daemon's data",
		Long: `Checks the database and every record in it, content against its digests, snapshots against their
directories, modes and owners, and which snapshotters work on this host. It reports each problem with its
meaning and what to do, changes nothing, and exits with 1 if it finds a problem. With --repair, and cleatd
stopped, it repairs what it can and keeps a copy of each file it replaces. Running containers are not touched.

The work is done by 'cleatd doctor': the cleatd in the directory of this program, or else in PATH.`,
		Args: argCount(0, 0),
	}
	fs := cmd.Flags()
	config := fs.String("config", "", "configuration `FILE` of the daemon")
	root := fs.String("root", "", "`DIRECTORY` of the daemon's persistent data")
	state := fs.String("state", "", "`DIRECTORY` of the daemon's volatile data")
	repair := fs.Bool("repair", false, "repair what can be repaired")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var args []string
		for _, f := range [][2]string{{"--config", *config}, {"--root", *root}, {"--state", *state}} {
			if f[1] != "" {
				args = append(args, f[0], f[1])
			}
		}
		args = append(args, "doctor")
		if *repair {
			args = append(args, "--repair")
		}
		return a.runDaemonBinary(cmd.Context(), args)
	}
	return cmd
}

// runDaemonBinary runs cleatd with this program's streams and returns its exit code.
func (a *app) runDaemonBinary(ctx context.Context, args []string) error {
	path, err := daemonBinary()
	if err != nil {
		return hinted(err, "install cleatd, or run 'cleatd doctor' on the host of the daemon")
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitCode(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// daemonBinary finds cleatd in the directory of this program, or in PATH.
func daemonBinary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own binary: %w", err)
	}
	sibling := filepath.Join(filepath.Dir(self), "cleatd")
	if info, err := os.Stat(sibling); err == nil && info.Mode().IsRegular() {
		return sibling, nil
	}
	path, err := exec.LookPath("cleatd")
	if err != nil {
		return "", fmt.Errorf("find cleatd: %w", err)
	}
	return path, nil
}
