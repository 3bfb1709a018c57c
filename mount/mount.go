// Package mount has the Mount value, the same as in containerd's API, and performs
// mounts.
//
// A snapshotter returns a snapshot as a []Mount. The user of its files
// calls All to attach them below a directory, or Detached to read files
// without a mount point.
//
// Guarantees: All attaches every mount or none. Targets are resolved inside the root with
// openat2, so that a link in an image cannot redirect a mount. Nothing is ever visible
// with fewer restrictions than requested: a read-only bind is made read-only before it is
// attached, if the kernel supports that (5.12). The options of an overlay may be longer than the
// page of mount(2).
//
// Caveats: Linux 5.6 or later, root in the mount namespace. The package imports only the
// standard library, x/sys and mountinfo, to save memory of the shim; its errors nevertheless have the classes
// of github.com/containerd/errdefs.
package mount

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/undo"
)

// Mount describes one mount. It means the same as containerd's types.Mount.
type Mount struct {
	// Type is the file system ("overlay", "tmpfs"), or "bind".
	Type string
	// Source is the device, or the file or directory for a bind.
	Source string
	// Target is the path below the root given to All; empty is the root itself.
	Target string
	// Options are in the style of fstab: flags such as "ro" and "rbind", anything else
	// is passed to the file system.
	Options []string
}

// All attaches the mounts one after another below root. If one fails, those attached
// before are detached again. Targets must exist. It is not idempotent: a second call
// stacks.
func All(mounts []Mount, root string) error {
	var u undo.Stack
	for _, m := range mounts {
		if err := one(m, root); err != nil {
			return errors.Join(err, u.Run())
		}
		u.Push("detach "+m.Target, func() error { return detach(root, m.Target) })
	}
	u.Release()
	return nil
}

func one(m Mount, root string) error {
	o, err := parse(m)
	if err != nil {
		return err
	}
	target, err := openTarget(root, m.Target)
	if err != nil {
		return err
	}
	defer closeFD(target)
	switch {
	case o.flags&unix.MS_REMOUNT != 0:
		err = unix.Mount(m.Source, fdPath(target), m.Type, o.flags, o.dataString())
	case o.bind:
		err = attachBind(m, o, target)
	case !o.ids.empty():
		err = attachMapped(m, o, target)
	default:
		err = attachFS(m, o, target)
	}
	if err == nil && o.bind && o.mayLackSetattr {
		err = remountBind(root, m.Target, o)
	}
	if err == nil && len(o.propagation) > 0 {
		err = setPropagation(root, m.Target, o.propagation)
	}
	if err != nil {
		return fmt.Errorf("mount %s %q on %q in %s: %w", m.Type, m.Source, m.Target, root, err)
	}
	return nil
}

// openTarget returns an O_PATH descriptor of target inside root.
func openTarget(root, target string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open mount root: %w", &os.PathError{Op: "open", Path: root, Err: err})
	}
	if target == "" || target == "/" || target == "." {
		return dir, nil
	}
	defer closeFD(dir)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := retryFD(func() (int, error) { return unix.Openat2(dir, target, &how) })
	if err != nil {
		return -1, fmt.Errorf("open mount target in %s: %w", root, &os.PathError{Op: "openat2", Path: target, Err: err})
	}
	return fd, nil
}

// detach removes the topmost mount at target, busy or not.
func detach(root, target string) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := unix.Unmount(fdPath(fd), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %q in %s: %w", target, root, err)
	}
	return nil
}

func setPropagation(root, target string, flags []uintptr) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	for _, f := range flags {
		if err := unix.Mount("none", fdPath(fd), "", f, ""); err != nil {
			return fmt.Errorf("set propagation: %w", errors.Join(err, detach(root, target)))
		}
	}
	return nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func closeFD(fd int) { _ = unix.Close(fd) }

// retryFD repeats a call that was interrupted, or (openat2 in a root) was disturbed by a rename.
func retryFD(f func() (int, error)) (int, error) {
	const most = 64
	for i := 0; ; i++ {
		fd, err := f()
		if i < most && (errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)) {
			continue
		}
		return fd, err
	}
}

// invalidError has the class "invalid argument" of errdefs without importing it.
type invalidError struct{ msg string }

func (e invalidError) Error() string { return e.msg }

// InvalidParameter marks the class for errdefs.IsInvalidArgument.
func (invalidError) InvalidParameter() {}

func invalidf(format string, args ...any) error { return invalidError{fmt.Sprintf(format, args...)} }
