package lifecycle

import (
	"os"
	"os/exec"

	"github.com/containerd/console"

	"github.com/cleatproject/cleat/integration/harness"
)

// openTerminal starts the CLI on its own terminal of 91 columns and 33 lines.
func openTerminal(d *harness.Daemon, args ...string) (console.Console, *exec.Cmd) {
	d.T.Helper()
	master, path, err := console.NewPty()
	harness.Must(d.T, err)
	d.T.Cleanup(func() { _ = master.Close() })
	harness.Must(d.T, master.Resize(console.WinSize{Width: 91, Height: 33}))
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	harness.Must(d.T, err)
	defer tty.Close()
	cmd := d.Command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	setctty(cmd)
	harness.Must(d.T, cmd.Start())
	return master, cmd
}
