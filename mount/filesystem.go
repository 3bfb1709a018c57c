package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxParam is the longest value, with its NUL, that fsconfig accepts as a string.
const maxParam = 256

// attachFS mounts a file system: by mount(2) if the options fit its page, as they are
// or shortened (see shorten), and by the descriptor calls otherwise.
func attachFS(m Mount, o *options, target int) error {
	path := fdPath(target)
	data := o.dataString()
	if len(data) < os.Getpagesize() {
		return withDevice(m, o, func(source string) error {
			return unix.Mount(source, path, m.Type, o.flags, data)
		})
	}
	if dir, short, ok := shorten(m.Type, o.data); ok && len(strings.Join(short, ",")) < os.Getpagesize() {
		return inDir(dir, func() error {
			return unix.Mount(m.Source, path, m.Type, o.flags, strings.Join(short, ","))
		})
	}
	tree, err := openFS(m, o)
	if err != nil {
		return err
	}
	defer closeFD(tree)
	return moveTo(tree, target)
}

// openFS creates a file system and returns it as a detached mount.
func openFS(m Mount, o *options) (tree int, err error) {
	err = withDevice(m, o, func(source string) error {
		m.Source = source
		tree, err = fromContext(m, o)
		return err
	})
	return tree, err
}

func fromContext(m Mount, o *options) (int, error) {
	fs, err := unix.Fsopen(m.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open file system context: %w", err)
	}
	defer closeFD(fs)
	if err := configure(fs, m, o); err != nil {
		return -1, withKernelLog(fs, err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, o.attrs())
	if err != nil {
		return -1, withKernelLog(fs, fmt.Errorf("make mount: %w", err))
	}
	return tree, nil
}

func configure(fs int, m Mount, o *options) error {
	if m.Source != "" {
		if err := unix.FsconfigSetString(fs, "source", m.Source); err != nil {
			return fmt.Errorf("set source: %w", err)
		}
	}
	for _, name := range o.superFlags() {
		if err := unix.FsconfigSetFlag(fs, name); err != nil {
			return fmt.Errorf("set flag %q: %w", name, err)
		}
	}
	for _, p := range params(m.Type, o.data) {
		var err error
		if p.hasValue {
			err = unix.FsconfigSetString(fs, p.key, p.value)
		} else {
			err = unix.FsconfigSetFlag(fs, p.key)
		}
		if err != nil {
			return fmt.Errorf("set option %q: %w", p.key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create file system: %w", err)
	}
	return nil
}

type param struct {
	key, value string
	hasValue   bool
}

// params splits options for fsconfig; an overlay's lowerdir becomes one value per layer,
// which the kernel takes literally, while it still unescapes upperdir and workdir.
func params(fsType string, data []string) []param {
	var ps []param
	for _, opt := range data {
		key, value, hasValue := strings.Cut(opt, "=")
		if fsType == "overlay" && key == "lowerdir" {
			for _, dir := range splitLower(value) {
				ps = append(ps, param{"lowerdir+", unescape(dir), true})
			}
			continue
		}
		ps = append(ps, param{key, value, hasValue})
	}
	return ps
}

// withKernelLog adds the kernel's messages of the context about the failure.
func withKernelLog(fs int, err error) error {
	buf := make([]byte, 512)
	n, rerr := unix.Read(fs, buf)
	if rerr != nil || n <= 0 {
		return err
	}
	return fmt.Errorf("%w (kernel: %s)", err, strings.TrimSpace(string(buf[:n])))
}

// Detached creates one mount that is attached nowhere and returns the directory at its root
// as a descriptor for openat2 and the like. Closing it unmounts it; nothing is left
// even if the process is killed. Exactly one mount must be given, because without
// a mount point they cannot be stacked; its Target is ignored.
func Detached(mounts []Mount) (*os.File, error) {
	if len(mounts) != 1 {
		return nil, invalidf("detach mounts: %d mounts, want exactly one", len(mounts))
	}
	m := mounts[0]
	o, err := parse(m)
	if err != nil {
		return nil, err
	}
	var tree int
	if o.bind {
		tree, err = cloneTree(m, o)
	} else {
		tree, err = detachedFS(m, o)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s %q detached: %w", m.Type, m.Source, err)
	}
	return os.NewFile(uintptr(tree), m.Source), nil
}

// detachedFS prefers the descriptor calls. If the kernel has no "lowerdir+" for overlays
// (before 6.7) or a value is too long for it, the file system is mounted temporarily on a private
// directory and cloned from there.
func detachedFS(m Mount, o *options) (int, error) {
	if o.ids.empty() && fits(params(m.Type, o.data)) {
		tree, err := openFS(m, o)
		if err == nil || m.Type != "overlay" || !errors.Is(err, unix.EINVAL) {
			return tree, err
		}
	}
	return viaDirectory(m, o)
}

func fits(ps []param) bool {
	for _, p := range ps {
		if len(p.value) >= maxParam {
			return false
		}
	}
	return true
}

func viaDirectory(m Mount, o *options) (int, error) {
	dir, err := os.MkdirTemp("", "cleat-mount-")
	if err != nil {
		return -1, fmt.Errorf("make mount point: %w", err)
	}
	defer func() { _ = os.Remove(dir) }()
	target, err := openTarget(dir, "")
	if err != nil {
		return -1, err
	}
	if o.ids.empty() {
		err = attachFS(m, o, target)
	} else {
		err = attachMapped(m, o, target)
	}
	closeFD(target)
	if err != nil {
		return -1, err
	}
	tree, err := cloneTree(Mount{Source: dir}, &options{})
	return tree, errors.Join(err, UnmountAll(dir, unix.MNT_DETACH))
}
