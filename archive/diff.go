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

// DiffOptions change how a difference is written. The zero value is good for a layer.
type DiffOptions struct {
	// Progress is told how many bytes of files have been written, now and then; it may be nil.
	Progress func(bytes int64)
	// Live says that the upper tree may be written to meanwhile. A file longer than 256 KiB that becomes
	// shorter while it is read then ends in zeros; without Live that is an error.
	Live bool
	// Latest, where it is set, takes the place of every time of a file that is later.
	Latest time.Time
	// Owners, where it is set, changes whom the files of the upper tree belong to before they are looked at,
	// and the value of security.capability, "" where a file has none.
	Owners func(uid, gid uint32, capability string) (newUID, newGID uint32, newCapability string)
}

// Diff writes what has to be done to the directory lower to make it the directory upper, as a layer:
// a tar archive in which a deletion is a whiteout. lower "" stands for an empty one.
//
// The archive depends on nothing but the two trees: entries are sorted, and carry no times of access
// and no names of users. Files whose attributes are the same are compared by their contents. Sockets
// are left out, which tar has no entry for. Mounts are entered.
//
// The lower tree may not change meanwhile. What of the upper one does is in the archive as it was at some
// moment, a name that goes as if it had gone before; a long file may be of several moments.
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

// DiffOverlay is Diff for an overlay: it reads the upper directory alone, which costs what was
// changed, however much lies below. Directories that the overlay copied up because something in them
// changed are in the archive. below is the nearest of the layers below, of which only the root's
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

// rootEntry writes the attributes of the root where they are not those of the lower one, or of a new
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
	below.st.Mtim = n.st.Mtim // which changes with whatever is in it
	if same, err := d.same(below, n); same || err != nil {
		return err
	}
	n.path = "."
	return d.write(n)
}

// differ is one difference on its way.
type differ struct {
	ctx     func() error
	tw      *tar.Writer
	root    int
	overlay bool
	opts    DiffOptions
	written int64
	// seen is the path under which a file of several names was written, by device and inode.
	seen map[[2]uint64]string
	// relinked are the files of several names that are not linked in the same way below.
	relinked map[[2]uint64]bool
	bufs     [2][]byte
}

// openDir opens a directory by one name, which is not followed.
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

// list returns the names in a directory, sorted; none for -1, and for one that was removed.
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

// directory writes the difference of two directories, of which low may be -1; path is theirs.
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

// added writes what is in the upper directory alone.
func (d *differ) added(up int, name, dir string) error {
	n, err := d.lookUpper(up, name, join(dir, name))
	if errors.Is(err, unix.ENOENT) {
		return nil // since it was listed
	}
	if err != nil {
		return err
	}
	defer n.close()
	if d.overlay && isWhiteout(&n.st) {
		return d.whiteout(dir, name)
	}
	if strings.HasPrefix(name, whiteoutPrefix) {
		return invalidf("%q cannot be in a layer: its name is that of a whiteout", n.path)
	}
	if err := d.write(n); err != nil || !n.isDir() {
		return err
	}
	return d.below(-1, n)
}

// below goes on in a directory of the upper tree.
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

// both writes what has become of a name that both have.
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
