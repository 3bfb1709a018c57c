// Package inroot opens paths below a directory as if that directory were the root of everything:
// whatever names and symbolic links contain, the opened file is below it.
//
// The kernel does it (openat2 with RESOLVE_IN_ROOT, Linux 5.6). If it does not support the call, or a
// filter of system calls blocks it, or it finds too many links, a walk does the same: part by
// part, by descriptors alone, following symbolic links itself. Names may change during both: the walk climbs by the
// descriptors that it came down by, so ".." cannot leave a directory that is moved concurrently.
//
// Descriptors are opened close-on-exec. Errors are *os.PathError. The root may be any directory;
// the caller ensures that it is not moved.
package inroot

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Openat2 is the system call.
type Openat2 func(dir int, path string, how *unix.OpenHow) (int, error)

// Opener opens paths. The zero value uses the kernel, and remembers if that does not support it. It is not
// safe for concurrent use.
type Opener struct {
	// Kernel, if set, replaces the system call; tests make it fail.
	Kernel Openat2
	walks  bool
}

// Open opens a path below the directory dir; "" is the directory itself. It accepts the flags O_PATH,
// O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK and O_NOCTTY.
func (o *Opener) Open(dir int, path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	flags |= unix.O_CLOEXEC
	if !o.walks {
		fd, err := o.ask(dir, path, flags)
		switch {
		// Filters of system calls return EPERM; a path alone cannot cause it.
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			o.walks = true
		// The kernel restarts if something is mounted or renamed concurrently, and counts the links of both
		// attempts: the walk counts them once.
		case errors.Is(err, unix.ELOOP):
		default:
			return fd, pathError("openat2", path, err)
		}
	}
	fd, err := walk(dir, path, flags)
	return fd, pathError("open", path, err)
}

// tries is the number of attempts for a path whose parts are being renamed.
const tries = 128

// ask opens a path by the kernel.
func (o *Opener) ask(dir int, path string, flags int) (fd int, err error) {
	call := o.Kernel
	if call == nil {
		call = unix.Openat2
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range tries {
		fd, err = call(dir, path, &how)
		// EAGAIN: a rename on this machine while the kernel climbed "..".
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
