package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// slowLimit is the time limit of a test in an emulated machine.
	slowLimit = 30 * time.Minute

	emulatorProgram = "/usr/bin/qemu-system-x86_64"
	filesProgram    = "/usr/lib/qemu/virtiofsd"
)

// emulator is an emulated machine with the kernel prepared by scripts/guest.sh. The host's files are shared by
// virtiofs (see the virtio specification, section 5.11), whose driver is a module: an initial file system loads it.
type emulator struct {
	files   string // the directory .guest of the checkout
	release string
}

var _ machine = (*emulator)(nil)

func newEmulator() (*emulator, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "guest.sh")); err == nil {
			break
		}
		if dir == "/" {
			return nil, errors.New("guest: not run in a checkout")
		}
		dir = filepath.Dir(dir)
	}
	files := filepath.Join(dir, ".guest")
	release, err := os.ReadFile(filepath.Join(files, "release"))
	if err != nil {
		return nil, fmt.Errorf("guest: %w: make deps prepares it", err)
	}
	return &emulator{files, strings.TrimSpace(string(release))}, nil
}

func (e *emulator) modules(overlay string) (string, error) {
	return `$b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts && $b mount -t devpts devpts /dev/pts
for m in quota_v2 loop xfs; do
	/usr/sbin/modprobe -d ` + quote(e.files) + ` $m || exit 1
done
/usr/sbin/modprobe -d ` + quote(e.files) + ` overlay ` + overlay + ` || exit 1`, nil
}

// start is the first process of the initial file system: {{init}} is that of the guest.
const start = `#!/bin/busybox sh
for m in {{modules}}; do /bin/busybox insmod /m/$m.ko || exit 1; done
/bin/busybox mount -t virtiofs host /root || exit 1
exec /bin/busybox switch_root /root {{init}}
`

// early are the modules needed for access to the host's files, in the order of their dependencies.
func early() []string {
	return []string{
		"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_modern_dev",
		"drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci", "fs/fuse/fuse", "fs/fuse/virtiofs",
	}
}

// initial creates the initial file system in dir and returns its archive.
func (e *emulator) initial(ctx context.Context, dir string) (string, error) {
	root := filepath.Join(dir, "initial")
	copies := map[string]string{shell: "bin/busybox"}
	var names []string
	for _, m := range early() {
		names = append(names, filepath.Base(m))
		copies[filepath.Join(e.files, "lib/modules", e.release, "kernel", m+".ko")] = "m/" + filepath.Base(m) + ".ko"
	}
	for _, d := range []string{"bin", "m", "root", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	for from, to := range copies {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(root, to), data, 0o755); err != nil {
			return "", err
		}
	}
	text := strings.NewReplacer("{{modules}}", strings.Join(names, " "), "{{init}}", filepath.Join(dir, "init")).Replace(start)
	if err := os.WriteFile(filepath.Join(root, "init"), []byte(text), 0o755); err != nil {
		return "", err
	}
	archive := filepath.Join(dir, "initial.cpio")
	pack := exec.CommandContext(ctx, shell, "sh", "-c", "cd "+quote(root)+" && find . | "+shell+" cpio -o -H newc >"+quote(archive))
	if out, err := pack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pack the initial file system: %w\n%s", err, out)
	}
	return archive, nil
}

// listen returns a listening socket for a process that inherits it.
func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	return f, errors.Join(err, l.Close())
}

func (e *emulator) boot(ctx context.Context, dir string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, slowLimit)
	defer cancel()
	archive, err := e.initial(ctx, dir)
	if err != nil {
		return nil, err
	}
	// The path of a socket must be short, that of a test's directory may not be.
	run, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(run) }() // holds a dead socket
	socket, console := filepath.Join(run, "files"), filepath.Join(dir, "console")
	listening, err := listen(socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = listening.Close() }() // each process has its own
	var printed bytes.Buffer
	files := exec.CommandContext(ctx, filesProgram, "--fd=3", "--rlimit-nofile=0",
		"-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot", "-o", "xattr", "-o", "log_level=err")
	files.Stderr = &printed
	files.ExtraFiles = []*os.File{listening}
	files.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := files.Start(); err != nil {
		return nil, err
	}
	qemu := exec.CommandContext(ctx, emulatorProgram, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(e.files, "vmlinuz"), "-initrd", archive, "-append", "console=ttyS0 quiet panic=-1",
		"-serial", "file:"+console,
		"-object", "memory-backend-memfd,id=mem,size=1G,share=on", "-numa", "node,memdev=mem",
		"-chardev", "socket,id=files,path="+socket, "-device", "vhost-user-fs-pci,chardev=files,tag=host")
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := qemu.CombinedOutput()
	cancel() // the other process ends with the connection, or now
	_ = files.Wait()
	said, _ := os.ReadFile(console) // missing if the emulator did not start
	return append(append(said, out...), printed.Bytes()...), err
}
