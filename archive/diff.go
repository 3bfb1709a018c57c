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
// are left out, which tar has no entry for. Nothing may change meanwhile. Mounts are entered.
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
	n, err := d.lstatUpper(d.root, ".", "")
	if err != nil {
		return err
	}
	below := &node{st: unix.Stat_t{Mode: unix.S_IFDIR | 0o755}}
	if low >= 0 {
		if below, err = d.lstat(low, ".", ""); err != nil {
			return err
		}
	}
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

// list returns the names in a directory, sorted; none for -1.
func list(dir int) ([]string, error) {
	if dir < 0 {
		return nil, nil
	}
	fd, err := openDir(dir, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	names, err := f.Readdirnames(-1)
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
	n, err := d.lstatUpper(up, name, join(dir, name))
	if err != nil {
		return err
	}
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
	up, err := openDir(n.dir, n.name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(up) }()
	if d.overlay {
		opaque, err := isOpaque(up)
		if err != nil {
			return err
		}
		if opaque {
			if err := d.whiteout(n.path, opaqueName); err != nil {
				return err
			}
		}
	}
	return d.directory(low, up, n.path)
}

// both writes what has become of a name that both have.
func (d *differ) both(lowDir, up int, name, dir string) error {
	path := join(dir, name)
	low, err := d.lstat(lowDir, name, path)
	if err != nil {
		return err
	}
	n, err := d.lstatUpper(up, name, path)
	if err != nil {
		return err
	}
	same, err := d.same(low, n)
	if err != nil {
		return err
	}
	if !same {
		if err := d.write(n); err != nil {
			return err
		}
	}
	if !n.isDir() {
		return nil
	}
	if !low.isDir() {
		return d.below(-1, n)
	}
	sub, err := openDir(low.dir, low.name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(sub) }()
	return d.below(sub, n)
}

// isOpaque tells whether an overlay's upper directory hides what is below it.
func isOpaque(fd int) (bool, error) {
	var value [8]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		n, err := unix.Fgetxattr(fd, attr, value[:])
		switch {
		case err == nil && n == 1 && value[0] == 'y':
			return true, nil
		case err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
			return false, &os.PathError{Op: "getxattr", Path: attr, Err: err}
		}
	}
	return false, nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
