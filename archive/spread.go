package archive

import "golang.org/x/sys/unix"

// topOfTrees is FS_TOPDIR_FL of linux/fs.h, chattr's T.
const topOfTrees = 0x20000

// spread tells the file system that each directory right below root is the top of a tree of its own, until
// the function that it returns is called. ext4 then gives each another group of inodes and blocks, instead of
// all that of their common parent. Layers of one image, which are unpacked at the same time, land in one
// group otherwise: they wait for each other, and soon after a removal they look past each inode that has just
// become free, which ext4 does not give away again for a minute.
//
// It is advice, which only the ext family takes. Nothing depends on whether it was taken, so nothing is said
// where it was not.
func spread(root int) (end func()) {
	flags, err := unix.IoctlGetUint32(root, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topOfTrees != 0 || unix.IoctlSetPointerInt(root, unix.FS_IOC_SETFLAGS, int(flags|topOfTrees)) != nil {
		return func() {}
	}
	return func() {
		_ = unix.IoctlSetPointerInt(root, unix.FS_IOC_SETFLAGS, int(flags)) // as it was
	}
}
