package archive

import "golang.org/x/sys/unix"

// Walking returns the options for a kernel without openat2.
func (o Options) Walking() Options {
	o.openat2 = func(int, string, *unix.OpenHow) (int, error) { return -1, unix.ENOSYS }
	return o
}
