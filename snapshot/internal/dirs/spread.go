package dirs

import (
	"os"

	"golang.org/x/sys/unix"
)

// topOfTrees is FS_TOPDIR_FL of linux/fs.h, chattr's T.
const topOfTrees = 0x20000

// spread tells the file system that each directory in dir is the top of a tree of its own. ext4 then gives
// each another group of inodes and blocks, instead of all the one of their common parent, where layers that
// are unpacked at the same time wait for each other, and where one that comes soon after a removal has to
// look past every inode that has just become free. It is advice, which only the ext family takes: nothing
// depends on whether it was taken, so nothing is said where it was not.
func spread(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topOfTrees != 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topOfTrees)) // advice, see above
}
