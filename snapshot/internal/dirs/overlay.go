package dirs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

// OverlayOptions finds the options that overlay mounts of directories in d want on this kernel, and
// tries them with a real mount. It is a failed precondition where overlay does not work.
func OverlayOptions(d *Dirs) (options []string, err error) {
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		// With the index two mounts of one upper directory fail, as happens between a
		// container's end and its restart.
		options = append(options, "index=off")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for overlay's index option: %w", err)
	}
	if inUserNamespace() {
		options = append(options, "userxattr")
	}
	dir, err := d.Temp()
	if err != nil {
		return nil, fmt.Errorf("probe overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m := mount.Mount{Type: "overlay", Source: "overlay", Options: append([]string(nil), options...)}
	for _, o := range [...]string{"lowerdir", "upperdir", "workdir"} {
		path := filepath.Join(dir, o)
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, fmt.Errorf("probe overlay: %w", err)
		}
		m.Options = append(m.Options, o+"="+mount.EscapeOverlayPath(path))
	}
	tree, err := mount.Detached([]mount.Mount{m})
	if err != nil {
		return nil, fmt.Errorf("overlay does not work here (is it in the kernel, and is this a file system it can write to, such as ext4 or xfs?): %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return options, tree.Close()
}

// inUserNamespace tells whether root here is somebody else outside.
func inUserNamespace() bool {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return false
	}
	return strings.Join(strings.Fields(line), " ") != "0 0 4294967295"
}

// Overlay describes the mount of directories upon each other, the topmost first in lower. Without
// upper it is read-only.
func Overlay(options, lower []string, upper, work string) []mount.Mount {
	options = append([]string(nil), options...)
	if upper != "" {
		options = append(options, "workdir="+mount.EscapeOverlayPath(work), "upperdir="+mount.EscapeOverlayPath(upper))
	}
	var text strings.Builder
	text.WriteString("lowerdir=")
	for i, dir := range lower {
		if i > 0 {
			text.WriteByte(':')
		}
		text.WriteString(mount.EscapeOverlayPath(dir))
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, text.String())}}
}
