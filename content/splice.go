package content

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spliceTo moves n bytes of a file from off on into a pipe, without copying them. handled is false
// if w is not a pipe; nothing was moved then.
func spliceTo(w io.Writer, f *os.File, off, n int64) (done int64, handled bool, err error) {
	pipe, ok := w.(*os.File)
	if !ok || n <= 0 {
		return 0, false, nil
	}
	rc, err := pipe.SyscallConn()
	if err != nil {
		return 0, true, err
	}
	for done < n {
		var moved int64
		var serr error
		if err := rc.Write(func(fd uintptr) bool {
			for {
				at := off + done
				most := int(min(n-done, bufferSize))
				moved, serr = unix.Splice(int(f.Fd()), &at, int(fd), nil, most, 0) // it blocks if the pipe's descriptor does
				if !errors.Is(serr, unix.EINTR) {
					return !errors.Is(serr, unix.EAGAIN)
				}
			}
		}); err != nil {
			return done, true, err
		}
		switch {
		case errors.Is(serr, unix.EINVAL) && done == 0:
			return 0, false, nil // not a pipe, or a file system without splice
		case serr != nil:
			return done, true, &os.PathError{Op: "splice", Path: f.Name(), Err: serr}
		case moved == 0:
			return done, true, io.ErrUnexpectedEOF
		}
		done += moved
	}
	return done, true, nil
}
