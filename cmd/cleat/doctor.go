package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/pflag"
)

// doctorCommand runs `cleatd doctor`: it has to work while no daemon does, and knows the files.
func doctorCommand() command {
	return command{
		name: "doctor", max: 0,
		short: "look over what the daemon keeps on disk, and mend it",
		detail: `
Checks the database and every record in it, content against its digests, snapshots against their
directories, modes and owners, and which snapshotters work on this host. It tells what is wrong, what
that means and what to do, changes nothing, and exits with 1 if something is wrong. With --repair, and
cleatd stopped, it mends what can be mended and keeps beside what it replaces. Running containers are
not touched.

The work is done by 'cleatd doctor', from the cleatd beside this program or else in PATH.`,
		setup: func(fs *pflag.FlagSet) action {
			var args []string
			paths := make(map[string]*string)
			for _, f := range []struct{ name, help string }{
				{"root", "`directory` of the daemon for what survives a reboot"},
				{"state", "`directory` of the daemon for what does not"},
				{"config", "configuration `file` of the daemon"},
			} {
				paths[f.name] = fs.String(f.name, "", f.help)
			}
			repair := fs.Bool("repair", false, "mend what can be mended")
			return func(ctx context.Context, a *app, _ []string) error {
				for _, name := range []string{"config", "root", "state"} {
					if v := *paths[name]; v != "" {
						args = append(args, "--"+name, v)
					}
				}
				args = append(args, "doctor")
				if *repair {
					args = append(args, "--repair")
				}
				return a.runDaemonBinary(ctx, args)
			}
		},
	}
}

// runDaemonBinary runs cleatd with this program's streams and passes its exit code on.
func (a *app) runDaemonBinary(ctx context.Context, args []string) error {
	path, err := daemonBinary()
	if err != nil {
		return hinted(err, "install cleatd, or run 'cleatd doctor' where it is")
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

// daemonBinary finds cleatd beside this program, or in PATH.
func daemonBinary() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own binary: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "cleatd")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
		return beside, nil
	}
	path, err := exec.LookPath("cleatd")
	if err != nil {
		return "", fmt.Errorf("find cleatd: %w", err)
	}
	return path, nil
}
