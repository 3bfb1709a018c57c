package activation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
)

// mkdirPrefix starts the options of the transform mkdir. There is one:
//
//	X-containerd.mkdir.path=DIR[:MODE[:UID:GID]]    create a directory, MODE octal, 0700 by default
//
// It must be below one of the mounts before, or among the daemon's own files, and its parent must
// exist. No link is followed on the way, since a container may have written it. An existing one is
// not changed.
const mkdirPrefix = "X-containerd.mkdir."

func makeDirectories(m *mount.Mount, active []Active, own string) error {
	for _, o := range takeOptions(m, mkdirPrefix) {
		if o[0] != "path" {
			return fmt.Errorf("option %s%s: want path: %w", mkdirPrefix, o[0], errdefs.ErrInvalidArgument)
		}
		d, err := parseDirectory(o[1])
		if err != nil {
			return err
		}
		if err := d.make(active, own); err != nil {
			return fmt.Errorf("make %s: %w", d.path, err)
		}
	}
	return nil
}

// directory is a directory to create.
type directory struct {
	path     string
	mode     uint32
	uid, gid int
}

func parseDirectory(text string) (directory, error) {
	d := directory{mode: 0o700, uid: -1, gid: -1}
	parts := strings.Split(text, ":")
	bad := func() (directory, error) {
		return directory{}, fmt.Errorf("directory %q: want PATH[:MODE[:UID:GID]]: %w", text, errdefs.ErrInvalidArgument)
	}
	if d.path = parts[0]; !filepath.IsAbs(d.path) || filepath.Clean(d.path) != d.path || len(parts) == 3 || len(parts) > 4 {
		return bad()
	}
	if len(parts) > 1 {
		mode, err := strconv.ParseUint(parts[1], 8, 12)
		if err != nil {
			return bad()
		}
		d.mode = uint32(mode)
	}
	if len(parts) == 4 {
		uid, uerr := strconv.ParseUint(parts[2], 10, 31)
		gid, gerr := strconv.ParseUint(parts[3], 10, 31)
		if uerr != nil || gerr != nil {
			return bad()
		}
		d.uid, d.gid = int(uid), int(gid)
	}
	return d, nil
}

// make creates the directory without leaving the one it must be in.
func (d directory) make(active []Active, own string) (err error) {
	root := own
	for _, a := range active {
		if below(d.path, a.Point) {
			root = a.Point
		}
	}
	if !below(d.path, root) {
		return fmt.Errorf("path is below none of the mounts before: %w", errdefs.ErrInvalidArgument)
	}
	rel, err := filepath.Rel(root, filepath.Dir(d.path))
	if err != nil {
		return err
	}
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(top) //nolint:errcheck // a path
	parent, err := unix.Openat2(top, rel, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return fmt.Errorf("open parent: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	defer unix.Close(parent) //nolint:errcheck // nothing was written
	name := filepath.Base(d.path)
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return os.NewSyscallError("mkdirat", err)
	}
	made, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return os.NewSyscallError("openat2", err)
	}
	defer unix.Close(made) //nolint:errcheck // nothing was written
	return errors.Join(unix.Fchown(made, d.uid, d.gid), unix.Fchmod(made, d.mode))
}

// below reports whether a clean path is below a directory.
func below(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
