package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// kernel is user-mode Linux.
const kernel = "/usr/bin/linux.uml"

// userMode is user-mode Linux on the host's kernel.
type userMode struct{}

var _ machine = userMode{}

func (userMode) modules(overlay string) (string, error) {
	return `for m in fs/quota/quota_tree fs/quota/quota_v2 drivers/block/loop; do
	$b insmod /usr/lib/uml/modules/$($b uname -r)/kernel/$m.ko || exit 1
done
$b insmod /usr/lib/uml/modules/$($b uname -r)/kernel/fs/overlayfs/overlay.ko ` + overlay + ` || exit 1`, nil
}

func (userMode) boot(ctx context.Context, dir string) ([]byte, error) {
	for _, path := range []string{kernel, shell} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w: make deps installs it", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, kernel, "mem=1G", "rootfstype=hostfs", "rootflags=/", "rw", "quiet",
		"uml_dir="+dir, "init="+filepath.Join(dir, "init"), "con=null", "con0=null,fd:2", "ssl=null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the guest's processes, if its kernel crashed
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}
