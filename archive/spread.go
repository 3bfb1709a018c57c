package archive

import "golang.org/x/sys/unix"

// topOfTrees is FS_TOPDIR_FL of linux/fs.h, chattr's T.
const topOfTrees = 0x20000

// spread marks each directory directly below root as the top of a tree of its own for the file system, until
// the returned function is called. ext4 then gives each another group of inodes and blocks, instead of
// the group of their common parent. Otherwise layers of one image, which are unpacked in parallel, are put in one
// group: they wait for each other, and soon after a removal they skip each inode that has just
// been freed, which ext4 does not reuse for a minute.
//
// It is a hint that only the ext family supports. Nothing depends on it, so errors are
// ignored.
func spread(root int) (end func()) {
	flags, err := unix.IoctlGetUint32(root, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topOfTrees != 0 || unix.IoctlSetPointerInt(root, unix.FS_IOC_SETFLAGS, int(flags|topOfTrees)) != nil {
		return func() {}
	}
	return func() {
		_ = unix.IoctlSetPointerInt(root, unix.FS_IOC_SETFLAGS, int(flags)) // as it was
	}
}
