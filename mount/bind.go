package mount

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// attachBind clones the source's tree, restricts the clone, and only then attaches it.
func attachBind(m Mount, o *options, target int) error {
	tree, err := cloneTree(m, o)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	return moveTo(tree, target)
}

// cloneTree returns a detached copy of the mount tree at the source, restricted as asked.
// Without mount_setattr it sets o.mayLackSetattr instead of restricting.
func cloneTree(m Mount, o *options) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if o.recursive {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := retryFD(func() (int, error) { return unix.OpenTree(unix.AT_FDCWD, m.Source, flags) })
	if err != nil {
		return -1, fmt.Errorf("clone mount tree: %w", err)
	}
	if !o.ids.empty() {
		if err := o.ids.inTree(tree); err != nil {
			closeFD(tree)
			return -1, err
		}
	}
	if err := restrict(tree, o); errors.Is(err, unix.ENOSYS) {
		o.mayLackSetattr = true
	} else if err != nil {
		closeFD(tree)
		return -1, err
	}
	return tree, nil
}

// restrict adds the mount's flags to those of the source; it never removes one.
func restrict(tree int, o *options) error {
	if set := uint64(o.attrs()); set != 0 {
		attr := unix.MountAttr{Attr_set: set}
		if o.flags&(unix.MS_NOATIME|unix.MS_RELATIME|unix.MS_STRICTATIME) != 0 {
			attr.Attr_clr = unix.MOUNT_ATTR__ATIME
		}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("set mount attributes: %w", err)
		}
	}
	if o.recursiveRO {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("make mount tree read-only: %w", err)
		}
	}
	return nil
}

// remountBind restricts an attached bind on kernels before 5.12. The flags of the source
// are kept, which MS_REMOUNT would otherwise clear.
func remountBind(root, target string, o *options) error {
	fd, err := openTarget(root, target)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return errors.Join(fmt.Errorf("stat bind mount: %w", err), detach(root, target))
	}
	const keep = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME | unix.ST_NODIRATIME
	flags := o.flags | uintptr(st.Flags)&keep | unix.MS_REMOUNT | unix.MS_BIND
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if o.recursiveRO {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("none", fdPath(fd), "", flags, ""); err != nil {
		return errors.Join(fmt.Errorf("restrict bind mount: %w", err), detach(root, target))
	}
	return nil
}

// moveTo attaches a detached tree to the target.
func moveTo(tree, target int) error {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(tree, "", target, "", flags); err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}
