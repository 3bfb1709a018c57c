package stdio

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/reason"
)

// pinned returns the paths of stdio that has an owner as names of descriptors: the FIFO that was checked is the one
// that is opened, whatever happens to its path. A path that is not a FIFO of the owner is refused. URIs of files and
// loggers are reserved to the daemon: it refuses them from users with a policy. release closes the descriptors once
// the FIFOs are open. Without an owner the paths are unchanged.
func (p Paths) pinned() (_ Paths, release func(), err error) {
	if p.Owner == "" {
		return p, func() {}, nil
	}
	var pins []*os.File
	release = func() {
		for _, f := range pins {
			_ = f.Close() // of an unused descriptor
		}
	}
	names := make(map[string]string)
	for _, path := range []*string{&p.Stdin, &p.Stdout, &p.Stderr} {
		if *path == "" || strings.HasPrefix(*path, "file://") || strings.HasPrefix(*path, "binary://") {
			continue
		}
		if names[*path] == "" {
			f, err := openOwned(strings.TrimPrefix(*path, "fifo://"), p.Owner)
			if err != nil {
				release()
				return p, nil, err
			}
			pins = append(pins, f)
			names[*path] = "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
		}
		*path = names[*path]
	}
	return p, release, nil
}

// openOwned opens a FIFO by path only (O_PATH), and refuses other files and other users' FIFOs.
func openOwned(path, owner string) (*os.File, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, reason.With(fmt.Errorf("stdio %q: want the path of a FIFO: %w", path, errdefs.ErrPermissionDenied), reason.PolicyDenied)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, classFIFO("stdio", &os.PathError{Op: "open fifo", Path: path, Err: err})
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("open fifo %s: %w", path, err), f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO || strconv.FormatUint(uint64(st.Uid), 10) != owner {
		return nil, errors.Join(fmt.Errorf("stdio %q is not a FIFO of user %s: %w", path, owner, reason.PolicyDenied), f.Close())
	}
	return f, nil
}
