package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DiffOptions change how a difference is written. The zero value is right for a layer.
type DiffOptions struct {
	// Progress, if not nil, is called occasionally with the bytes of files written so far.
	Progress func(bytes int64)
	// Live allows concurrent writes to the upper tree. A file longer than 256 KiB that becomes
	// shorter while it is read then ends in zeros; without Live that is an error.
	Live bool
	// Latest, if set, replaces later times of files.
	Latest time.Time
	// Owners, if set, changes the owners of the files of the upper tree before they are compared,
	// and the value of security.capability, "" if a file has none.
	Owners func(uid, gid uint32, capability string) (newUID, newGID uint32, newCapability string)
}

// Diff writes the changes from the directory lower to the directory upper, as a layer:
// a tar archive in which a deletion is a whiteout. lower "" means an empty one.
//
// The archive depends on the two trees only: entries are sorted, and have no times of access
// and no names of users. Files with the same attributes are compared by their contents. Sockets
// are left out: tar has no entry for them. Mounts are entered.
//
// The lower tree must not change during the call. A concurrent change of the upper one is archived as of
// some moment, a removed name as if it had been removed before; a long file may be of several moments.
func Diff(ctx context.Context, w io.Writer, lower, upper string, opts DiffOptions) error {
	return diff(ctx, w, lower, upper, opts, func(d *differ, low int) (err error) {
		if low >= 0 {
			if d.relinked, err = relinked(ctx, low, d.root); err != nil {
				return err
			}
		}
		return d.directory(low, d.root, "")
	})
}

// DiffOverlay is Diff for an overlay: it reads only the upper directory, so its cost depends on the
// changes, and not on the lower layers. Directories that the overlay copied up because something in them
// changed are in the archive. below is the nearest lower layer, of which only the root's
// attributes are read; it may be "".
func DiffOverlay(ctx context.Context, w io.Writer, below, upper string, opts DiffOptions) error {
	return diff(ctx, w, below, upper, opts, func(d *differ, _ int) error {
		d.overlay = true
		return d.directory(-1, d.root, "")
	})
}

func diff(ctx context.Context, w io.Writer, lower, upper string, opts DiffOptions, run func(d *differ, low int) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("diff %s: %w", upper, err)
		}
	}()
	d := &differ{
		ctx: ctx.Err, tw: tar.NewWriter(w), opts: opts, seen: make(map[[2]uint64]string),
		bufs: [2][]byte{make([]byte, copyBuffer), make([]byte, copyBuffer)},
	}
	if d.root, err = openDir(unix.AT_FDCWD, upper); err != nil {
		return err
	}
	defer func() { _ = unix.Close(d.root) }()
	low := -1
	if lower != "" {
		if low, err = openDir(unix.AT_FDCWD, lower); err != nil {
			return err
		}
		defer func() { _ = unix.Close(low) }()
	}
	if err := d.rootEntry(low); err != nil {
		return err
	}
	if err := run(d, low); err != nil {
		return err
	}
	return d.tw.Close()
}

// rootEntry writes the attributes of the root if they differ from those of the lower one, or of a new
// directory.
func (d *differ) rootEntry(low int) error {
	n, err := d.lookUpper(d.root, ".", "")
	if err != nil {
		return err
	}
	defer n.close()
	below := &node{fd: -1, st: unix.Stat_t{Mode: unix.S_IFDIR | 0o755}}
	if low >= 0 {
		if below, err = d.look(low, ".", ""); err != nil {
			return err
		}
	}
	defer below.close()
	below.st.Mtim = n.st.Mtim // which changes with its entries
	if same, err := d.same(below, n); same || err != nil {
		return err
	}
	n.path = "."
	return d.write(n)
}

// differ is one difference that is being written.
type differ struct {
	ctx     func() error
	tw      *tar.Writer
	root    int
	overlay bool
	opts    DiffOptions
	written int64
	// seen is the path under which a file of several names was written, by device and inode.
	seen map[[2]uint64]string
	// relinked are the files of several names that are linked differently in the lower tree.
	relinked map[[2]uint64]bool
	bufs     [2][]byte
}

// openDir opens a directory by a single name, which is not followed.
func openDir(dir int, name string) (int, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if dir != unix.AT_FDCWD {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// list returns the names in a directory, sorted; none for -1, and for a removed one.
func list(dir int) ([]string, error) {
	if dir < 0 {
		return nil, nil
	}
	fd, err := openDir(dir, ".")
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	names, err := f.Readdirnames(-1)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// directory writes the difference of two directories at path, of which low may be -1.
func (d *differ) directory(low, up int, path string) error {
	below, err := list(low)
	if err != nil {
		return err
	}
	above, err := list(up)
	if err != nil {
		return err
	}
	for len(below) > 0 || len(above) > 0 {
		if err := d.ctx(); err != nil {
			return err
		}
		switch {
		case len(above) == 0 || len(below) > 0 && below[0] < above[0]:
			err = d.whiteout(path, below[0])
			below = below[1:]
		case len(below) == 0 || above[0] < below[0]:
			err = d.added(up, above[0], path)
			above = above[1:]
		default:
			err = d.both(low, up, above[0], path)
			below, above = below[1:], above[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) whiteout(dir, name string) error {
	return d.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: join(dir, whiteoutPrefix+name), Format: tar.FormatPAX})
}

// added writes a file that is in the upper directory only.
func (d *differ) added(up int, name, dir string) error {
	n, err := d.lookUpper(up, name, join(dir, name))
	if errors.Is(err, unix.ENOENT) {
		return nil // removed since it was listed
	}
	if err != nil {
		return err
	}
	defer n.close()
	if d.overlay && isWhiteout(&n.st) {
		return d.whiteout(dir, name)
	}
	if strings.HasPrefix(name, whiteoutPrefix) {
		return invalidf("%q cannot be in a layer: name of a whiteout", n.path)
	}
	if err := d.write(n); err != nil || !n.isDir() {
		return err
	}
	return d.below(-1, n)
}

// below continues in a directory of the upper tree.
func (d *differ) below(low int, n *node) error {
	if d.overlay {
		opaque, err := n.isOpaque()
		if err != nil {
			return err
		}
		if opaque {
			if err := d.whiteout(n.path, opaqueName); err != nil {
				return err
			}
		}
	}
	return d.directory(low, n.fd, n.path)
}

// both writes the change of a name that is in both directories.
func (d *differ) both(lowDir, up int, name, dir string) error {
	path := join(dir, name)
	n, err := d.lookUpper(up, name, path)
	if errors.Is(err, unix.ENOENT) {
		return d.whiteout(dir, name)
	}
	if err != nil {
		return err
	}
	defer n.close()
	low, err := d.look(lowDir, name, path)
	if err != nil {
		return err
	}
	defer low.close()
	same, err := d.same(low, n)
	if err != nil {
		return err
	}
	if !same {
		if err := d.write(n); err != nil {
			return err
		}
	}
	switch {
	case !n.isDir():
		return nil
	case !low.isDir():
		return d.below(-1, n)
	default:
		return d.below(low.fd, n)
	}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
