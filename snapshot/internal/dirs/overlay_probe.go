package dirs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
)

// OverlayOptions determines the options that overlay mounts of directories in d need on this kernel, by
// mounting overlays and observing their behaviour:
//
//   - index=off if the kernel supports it: with the index two mounts of one upper directory fail, as
//     happens between a container's end and its restart.
//   - userxattr if trusted attributes may not be written: in a user namespace.
//   - metacopy=off and redirect_dir=off if the kernel would enable these itself. A file of which an
//     upper directory has only the attributes, or a directory under a new name, is meaningless without
//     the lower directories; layers are made of upper directories alone, and used on others.
//
// Failed precondition if overlay does not work.
func OverlayOptions(d *Dirs) (options []string, err error) {
	options, err = probeOverlay(d)
	if err != nil && takesNoWrites(err) {
		if assumed, ok := assumedOptions(overlayParameters, inUserNamespace()); ok {
			return assumed, nil
		}
	}
	return options, err
}

func probeOverlay(d *Dirs) (options []string, err error) {
	dir, err := d.Temp()
	if err != nil {
		return nil, fmt.Errorf("probe overlay: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := overlayProbe{dir: dir, mount: mount.Detached}
	if options, err = p.options(inUserNamespace()); err != nil {
		return nil, fmt.Errorf("probe overlay: %w", err)
	}
	return options, nil
}

// overlayParameters is the directory with the settings of the kernel's overlay.
const overlayParameters = "/sys/module/overlay/parameters"

// assumedOptions returns the options that a probe would determine, by the settings of the kernel's overlay;
// false if it has none.
func assumedOptions(parameters string, userNamespace bool) (options []string, ok bool) {
	if _, err := os.Stat(parameters); err != nil {
		return nil, false
	}
	set := func(name string) (known, on bool) {
		data, err := os.ReadFile(filepath.Join(parameters, name))
		return err == nil, strings.HasPrefix(string(data), "Y")
	}
	if known, _ := set("index"); known {
		options = append(options, "index=off")
	}
	if userNamespace {
		options = append(options, "userxattr")
	}
	_, metacopy := set("metacopy")
	_, redirect := set("redirect_dir")
	if metacopy || redirect {
		options = append(options, "metacopy=off", "redirect_dir=off")
	}
	return options, true
}

// overlayProbe tries mounts in a directory, each in another subdirectory.
type overlayProbe struct {
	dir   string
	tries int
	mount func([]mount.Mount) (*os.File, error)
}

func (p *overlayProbe) options(userNamespace bool) ([]string, error) {
	var wanted []string
	if userNamespace {
		wanted = []string{"userxattr"}
	}
	options, found, err := p.best(append([]string{"index=off"}, wanted...), wanted, nil)
	if err != nil {
		return nil, fmt.Errorf("overlay does not work on this kernel and file system: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if !found.metacopy && !found.redirect {
		return options, nil
	}
	options = append(options, "metacopy=off", "redirect_dir=off")
	if found, err = p.try(options); err != nil {
		return nil, err
	}
	if found.metacopy || found.redirect {
		return nil, fmt.Errorf("this kernel's overlay makes incomplete upper directories with every option (metacopy or redirect_dir): %w", errdefs.ErrFailedPrecondition)
	}
	return options, nil
}

// best returns the first of several lists of options that the kernel accepts.
func (p *overlayProbe) best(lists ...[]string) (options []string, found habits, err error) {
	for _, options = range lists {
		found, err = p.try(options)
		if err == nil || !errors.Is(err, unix.EINVAL) { // the error for an unknown option
			break
		}
	}
	return options, found, err
}

// habits are the observed behaviour of a mount.
type habits struct{ metacopy, redirect bool }

// try mounts an overlay with options, changes the mode of a lower file and the name of a lower directory,
// and inspects the upper directory.
func (p *overlayProbe) try(options []string) (h habits, err error) {
	p.tries++
	base := filepath.Join(p.dir, fmt.Sprint(p.tries))
	lower, upper, work := filepath.Join(base, "lower"), filepath.Join(base, "upper"), filepath.Join(base, "work")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(lower, "directory"), 0o700), os.Mkdir(upper, 0o700), os.Mkdir(work, 0o700),
		os.WriteFile(filepath.Join(lower, "file"), []byte("contents"), 0o600),
	); err != nil {
		return h, err
	}
	tree, err := p.mount(Overlay(options, []string{lower}, upper, work))
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	if err := unix.Fchmodat(int(tree.Fd()), "file", 0o644, 0); err != nil {
		return h, fmt.Errorf("change a file in an overlay: %w", err)
	}
	// A reference to the lower file is marked by this attribute; the file may have blocks for other reasons.
	for _, attr := range []string{"trusted.overlay.metacopy", "user.overlay.metacopy"} {
		if _, err := unix.Lgetxattr(filepath.Join(upper, "file"), attr, nil); err == nil {
			h.metacopy = true
		}
	}
	switch err := unix.Renameat(int(tree.Fd()), "directory", int(tree.Fd()), "renamed"); {
	case err == nil:
		h.redirect = true
	case !errors.Is(err, unix.EXDEV): // the error without redirection
		return h, fmt.Errorf("rename a directory in an overlay: %w", err)
	}
	return h, nil
}

// inUserNamespace reports whether this process is in a user namespace other than the initial one.
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
