package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// idmap maps the owners of files through a mount: the options uidmap and gidmap.
type idmap struct{ uid, gid []syscall.SysProcIDMap }

func (i *idmap) empty() bool { return len(i.uid) == 0 && len(i.gid) == 0 }

// parseIDMap parses "CONTAINER:HOST:SIZE", several separated by commas or spaces.
func parseIDMap(text string) (list []syscall.SysProcIDMap, err error) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		fields := strings.Split(part, ":")
		var n [3]uint64
		for i := range n {
			if len(fields) != len(n) {
				return nil, invalidf("id mapping %q: want CONTAINER:HOST:SIZE", part)
			}
			if n[i], err = strconv.ParseUint(fields[i], 10, 32); err != nil {
				return nil, invalidf("id mapping %q: %v", part, err)
			}
		}
		if n[2] == 0 {
			return nil, invalidf("id mapping %q maps nothing", part)
		}
		list = append(list, syscall.SysProcIDMap{ContainerID: int(n[0]), HostID: int(n[1]), Size: int(n[2])})
	}
	if len(list) == 0 {
		return nil, invalidf("id mapping %q maps nothing", text)
	}
	return list, nil
}

// namespace opens a user namespace with the mappings. It is created by a process that is stopped before
// its first instruction, and killed at once.
func (i *idmap) namespace() (_ *os.File, err error) {
	runtime.LockOSThread() // which traces the process
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"user-namespace"}, &syscall.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: i.uid, GidMappings: i.gid, Ptrace: true, Pdeathsig: unix.SIGKILL,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL) // it is stopped, and ends by this
		for {
			var st unix.WaitStatus
			_, werr := unix.Wait4(pid, &st, unix.WALL, nil)
			switch {
			case errors.Is(werr, unix.EINTR), werr == nil && st.Stopped():
				continue
			case werr != nil && !errors.Is(werr, unix.ECHILD): // another goroutine may collect the children
				err = errors.Join(err, fmt.Errorf("make user namespace: %w", werr))
			}
			return
		}
	}()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return f, nil
}

// apply maps a detached mount.
func (i *idmap) apply(tree int, ns *os.File) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("map the owners of files: %w", err)
	}
	return nil
}

// inTree is apply with a namespace of its own.
func (i *idmap) inTree(tree int) error {
	ns, err := i.namespace()
	if err != nil {
		return err
	}
	return errors.Join(i.apply(tree, ns), ns.Close())
}

// mappedTree returns a detached copy of the mount of a directory, with mapped owners.
func (i *idmap) mappedTree(dir string, ns *os.File) (int, error) {
	tree, err := retryFD(func() (int, error) {
		return unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	})
	if err != nil {
		return -1, fmt.Errorf("clone mount tree: %w", &os.PathError{Op: "open_tree", Path: dir, Err: err})
	}
	if err := i.apply(tree, ns); err != nil {
		closeFD(tree)
		return -1, err
	}
	return tree, nil
}

// IDMappable reports whether the owners of files in a directory can be mapped by a mount: the options
// uidmap and gidmap work there.
func IDMappable(dir string) bool {
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1, Size: 1}}
	i := &idmap{uid: one, gid: one}
	ns, err := i.namespace()
	if err != nil {
		return false
	}
	defer func() { _ = ns.Close() }()
	tree, err := i.mappedTree(dir, ns)
	if err != nil {
		return false
	}
	closeFD(tree)
	return true
}

// attachMapped mounts an overlay on lower layers with mapped owners; the upper one is not mapped, because
// files written there are owned by their writer. The layers are detached mounts,
// except on kernels that require attached ones (before 6.15): there, temporarily, on a private directory.
func attachMapped(m Mount, o *options, target int) (err error) {
	ns, err := o.ids.namespace()
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	_, lower, _ := OverlayDirs(m)
	trees := make([]int, 0, len(lower))
	defer func() {
		for _, tree := range trees {
			closeFD(tree)
		}
	}()
	for _, dir := range lower {
		tree, err := o.ids.mappedTree(dir, ns)
		if err != nil {
			return err
		}
		trees = append(trees, tree)
	}
	paths := make([]string, len(trees))
	for i, tree := range trees {
		paths[i] = fdPath(tree)
	}
	err = attachFS(m, o.withLower(paths), target)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	return withAttached(trees, func(paths []string) error { return attachFS(m, o.withLower(paths), target) })
}

// withAttached attaches detached mounts below a private directory while f runs.
func withAttached(trees []int, f func(paths []string) error) (err error) {
	dir, err := os.MkdirTemp("", "cleat-mount-")
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	defer func() {
		left, uerr := Under(dir)
		for _, path := range left {
			uerr = errors.Join(uerr, UnmountAll(path, unix.MNT_DETACH))
		}
		if uerr == nil {
			uerr = os.RemoveAll(dir)
		}
		err = errors.Join(err, uerr)
	}()
	paths := make([]string, len(trees))
	for i, tree := range trees {
		paths[i] = dir + "/" + strconv.Itoa(i)
		if err := os.Mkdir(paths[i], 0o700); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, paths[i], unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach layer: %w", err)
		}
	}
	return f(paths)
}

// withLower returns the options with other lower directories.
func (o *options) withLower(lower []string) *options {
	c := *o
	c.data = make([]string, 0, len(o.data))
	for _, opt := range o.data {
		if strings.HasPrefix(opt, "lowerdir=") {
			escaped := make([]string, len(lower))
			for i, dir := range lower {
				escaped[i] = EscapeOverlayPath(dir)
			}
			opt = "lowerdir=" + strings.Join(escaped, ":")
		}
		c.data = append(c.data, opt)
	}
	return &c
}
