package quota

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interface: quotactl(2) with linux/quota.h and linux/dqblk_xfs.h, and the attributes of
// files in linux/fs.h. XFS and ext4 support the same calls.
const (
	getQuota   = 0x800007
	setQuota   = 0x800008
	getState   = 'X'<<8 + 8 // Q_XGETQSTATV
	ofProjects = 2          // PRJQUOTA

	stateVersion = 1      // FS_QSTATV_VERSION1
	enforced     = 1 << 5 // FS_QUOTA_PDQ_ENFD

	blockSize   = 1024 // unit of limits
	validBlocks = 1    // QIF_BLIMITS

	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritFlag   = 0x200      // FS_XFLAG_PROJINHERIT
)

// state is the beginning of struct fs_quota_statv, with space for the rest.
type state struct {
	version, _ uint8
	flags      uint16
	_          [252]byte
}

// quotas is struct if_dqblk.
type quotas struct {
	hardBlocks, softBlocks, bytes uint64
	hardFiles, softFiles, files   uint64
	blockTime, fileTime           uint64
	valid, _                      uint32
}

// attributes is struct fsxattr.
type attributes struct {
	flags, extentSize, extents, project, copyExtentSize uint32
	_                                                   [8]byte
}

// control calls quotactl_fd, which exists since Linux 5.14.
func control(f *os.File, command, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|ofProjects), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("quotactl", errno)
	}
	return nil
}

func ioctl(f *os.File, request uintptr, a *attributes) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))); errno != 0 {
		return &os.PathError{Op: "ioctl", Path: f.Name(), Err: errno}
	}
	return nil
}
