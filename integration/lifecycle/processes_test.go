package lifecycle

import (
	"os/exec"
	"syscall"
)

// setctty makes the command's standard input its controlling terminal.
func setctty(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
}
