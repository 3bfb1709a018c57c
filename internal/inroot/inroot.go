// Package inroot opens paths below a directory as if that directory were the root of everything:
// whatever names and symbolic links say, what is opened lies below it.
//
// The kernel does it (openat2 with RESOLVE_IN_ROOT, Linux 5.6). Where it does not know the call, or a
// filter of system calls does not let it through, or it finds too many links, a walk does the same: part by
// part, by descriptors alone, following symbolic links itself. Names may change under either: the walk climbs by the
// descriptors that it came down by, so ".." cannot lead out of a directory that is moved meanwhile.
//
// Descriptors are opened close-on-exec. Errors are *os.PathError. The root may be anything that can
// be walked from; that nobody moves it is the caller's.
package inroot

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Openat2 is the system call.
type Openat2 func(dir int, path string, how *unix.OpenHow) (int, error)

// Opener opens paths. The zero value asks the kernel, and remembers if that cannot do it. It is not
// for several goroutines at once.
type Opener struct {
	// Kernel takes the place of the system call where it is set; tests make it fail.
	Kernel Openat2
	walks  bool
}

// Open opens a path below the directory dir; "" is the directory itself. Of flags it takes O_PATH,
// O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK and O_NOCTTY.
func (o *Opener) Open(dir int, path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	flags |= unix.O_CLOEXEC
	if !o.walks {
		fd, err := o.ask(dir, path, flags)
		switch {
		// EPERM is what filters of system calls answer; a path alone cannot bring it about.
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			o.walks = true
		// The kernel begins anew where something is mounted or renamed meanwhile, and counts the links of both
		// attempts: the walk counts them once.
		case errors.Is(err, unix.ELOOP):
		default:
			return fd, pathError("openat2", path, err)
		}
	}
	fd, err := walk(dir, path, flags)
	return fd, pathError("open", path, err)
}

// tries is how often a path is tried whose parts are being renamed.
const tries = 128

// ask has the kernel open a path.
func (o *Opener) ask(dir int, path string, flags int) (fd int, err error) {
	call := o.Kernel
	if call == nil {
		call = unix.Openat2
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range tries {
		fd, err = call(dir, path, &how)
		// EAGAIN: something was renamed on this machine while the kernel climbed "..".
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
