package snapshots

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
)

// LabelVolatile on a snapshot says that it need not survive a crash of the machine. An overlay then
// never waits for the disk: not for a container's fsync, and not when it is unmounted, which would wait
// for everybody's writes. The kernel mounts such an overlay once, and refuses it from then on.
const LabelVolatile = "containerd.io/snapshot/overlay.volatile"

const volatileOption = "volatile"

// throwAway returns the mounts of a snapshot that need not survive a crash.
func throwAway(mounts []mount.Mount) []mount.Mount {
	if !kernelFrom(5, 10) {
		return mounts
	}
	out := slices.Clone(mounts)
	for i, m := range out {
		if upper, _, ok := mount.OverlayDirs(m); ok && upper != "" {
			out[i].Options = append(slices.Clone(m.Options), volatileOption)
		}
	}
	return out
}

// kernelFrom reports whether the kernel has this version or a later one.
func kernelFrom(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
