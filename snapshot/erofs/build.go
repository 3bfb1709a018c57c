package erofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/snapshot/internal/dirs"
)

// imageUUID is the UUID of every image: images are distinguished by their content.
const imageUUID = "00000000-0000-4000-8000-000000000000"

// builders returns the paths of mkfs.erofs; never from a PATH that others may control.
func builders() []string {
	return []string{"/usr/bin/mkfs.erofs", "/usr/sbin/mkfs.erofs", "/sbin/mkfs.erofs", "/usr/local/bin/mkfs.erofs", "/usr/local/sbin/mkfs.erofs"}
}

// probe finds the driver's requirements and tries them.
func (d *Driver) probe() (err error) {
	for _, path := range builders() {
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			d.mkfs = path
			break
		}
	}
	if d.mkfs == "" {
		return fmt.Errorf("mkfs.erofs not found at %s: %w", strings.Join(builders(), ", "), reason.ProgramMissing)
	}
	if d.options, err = dirs.OverlayOptions(d.dirs); err != nil {
		return err
	}
	dir, err := d.dirs.Temp()
	if err != nil {
		return fmt.Errorf("probe erofs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	source, image, at := filepath.Join(dir, "source"), filepath.Join(dir, imageName), filepath.Join(dir, lowerName)
	if err := errors.Join(os.Mkdir(source, 0o755), os.Mkdir(at, 0o755)); err != nil {
		return fmt.Errorf("probe erofs: %w", err)
	}
	if err := d.build(context.Background(), source, image); err != nil {
		return fmt.Errorf("probe erofs: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if err := attach(image, at); err != nil {
		return fmt.Errorf("erofs does not work on this kernel: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return mount.UnmountAll(at, 0)
}

// build creates an image of a directory; it is complete and on disk when it gets its name.
func (d *Driver) build(ctx context.Context, source, image string) (err error) {
	if _, err := os.Stat(source); err != nil {
		return err
	}
	tmp := image + ".tmp"
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	// The same files give the same image; extended inodes preserve times and owners in full.
	cmd := exec.CommandContext(ctx, d.mkfs, "--quiet", "-U", imageUUID, "-E", "force-inode-extended", "--preserve-mtime", tmp, source)
	cmd.Env = []string{}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("build erofs image: %w: %s", err, strings.TrimSpace(out.String()))
	}
	if err := seal(tmp); err != nil {
		return err
	}
	return durable.Rename(tmp, image)
}

// seal syncs an image and enables fs-verity for it, if the file system supports that.
func seal(image string) error {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o400), f.Sync(), f.Close()); err != nil {
		return err
	}
	return enableVerity(image)
}

// The interface of fs-verity, see Documentation/filesystems/fsverity.rst of the kernel.
const (
	fsIocEnableVerity = 1<<30 | 128<<16 | 'f'<<8 | 133
	verityVersion     = 1
	veritySHA256      = 1
	verityBlock       = 4096
)

type verityArg struct {
	version, hashAlgorithm, blockSize, saltSize uint32
	salt                                        uint64
	sigSize, reserved1                          uint32
	sig                                         uint64
	reserved2                                   [11]uint64
}

func enableVerity(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	arg := verityArg{version: verityVersion, hashAlgorithm: veritySHA256, blockSize: verityBlock}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocEnableVerity, uintptr(unsafe.Pointer(&arg)))
	switch {
	case errno == 0, errors.Is(errno, unix.EEXIST):
		return nil
	case errors.Is(errno, unix.ENOTTY), errors.Is(errno, unix.EOPNOTSUPP), errors.Is(errno, unix.EINVAL):
		return nil // kernel and file system need not support it
	default:
		return fmt.Errorf("enable fs-verity: %w", errno)
	}
}
