package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/mount"
)

// Diff writes what has to be done to what left shows to make it what right shows, as a layer that is
// not compressed. left may be empty. Where right is an overlay upon exactly what left shows, only its
// upper directory is read; otherwise both are attached, for reading alone, and compared. Nobody may
// write to left meanwhile; what becomes of changes to right is archive.Diff's to say.
func Diff(ctx context.Context, w io.Writer, left, right []mount.Mount, opts archive.DiffOptions) (err error) {
	if len(right) == 0 {
		return invalidf("diff: there are no mounts to look at")
	}
	if upper, lower, ok := upon(left, right); ok {
		return archive.DiffOverlay(ctx, w, lower, upper, opts)
	}
	lower, done, err := show(left)
	if err != nil {
		return fmt.Errorf("diff: attach the left side: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	upper, done2, err := show(right)
	if err != nil {
		return fmt.Errorf("diff: attach the right side: %w", err)
	}
	defer func() { err = errors.Join(err, done2()) }()
	return archive.Diff(ctx, w, lower, upper, opts)
}

// ReadsUpperAlone tells whether Diff of these mounts reads nothing but an overlay's upper directory.
func ReadsUpperAlone(left, right []mount.Mount) bool {
	_, _, ok := upon(left, right)
	return ok
}

// upon tells whether right is an overlay upon exactly what left shows, with an upper directory that
// says everything: metadata alone and redirected names cannot be understood without what is below.
func upon(left, right []mount.Mount) (upper, lower string, ok bool) {
	if len(left) != 1 || len(right) != 1 || left[0].Target != "" || right[0].Target != "" {
		return "", "", false
	}
	upper, below, ok := mount.OverlayDirs(right[0])
	if !ok || upper == "" || slices.ContainsFunc(right[0].Options, refersBelow) {
		return "", "", false
	}
	var shown []string
	if m := left[0]; m.Type == "bind" {
		shown = []string{m.Source}
	} else if up, dirs, ok := mount.OverlayDirs(m); ok && up == "" {
		shown = dirs
	}
	return upper, below[0], slices.Equal(shown, below)
}

// refersBelow knows the overlay's options by which files of the upper directory refer to those below.
func refersBelow(option string) bool {
	return option == "metacopy=on" || option == "redirect_dir=on" || strings.HasPrefix(option, "datadir")
}

// show attaches mounts for reading and returns where; "" for no mounts.
func show(mounts []mount.Mount) (dir string, done func() error, err error) {
	if len(mounts) == 0 {
		return "", func() error { return nil }, nil
	}
	if dir, err = os.MkdirTemp("", "cleat-diff-"); err != nil {
		return "", nil, fmt.Errorf("make mount point: %w", err)
	}
	if err := mount.All(readOnly(mounts), dir); err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, func() error {
		if err := mount.UnmountAll(dir, 0); err != nil {
			return err
		}
		return os.Remove(dir)
	}, nil
}

// readOnly returns the mounts as they can only be read. An overlay's upper directory becomes the
// topmost of the lower ones: it may be in use by a mount that writes, beside which there can be no other.
func readOnly(mounts []mount.Mount) []mount.Mount {
	out := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		upper, lower, _ := mount.OverlayDirs(m)
		options := make([]string, 0, len(m.Options)+1)
		for _, o := range m.Options {
			switch {
			case o == "rw", o == "volatile", upper != "" && (strings.HasPrefix(o, "upperdir=") || strings.HasPrefix(o, "workdir=")):
				continue
			case upper != "" && strings.HasPrefix(o, "lowerdir="):
				dirs := []string{mount.EscapeOverlayPath(upper)}
				for _, dir := range lower {
					dirs = append(dirs, mount.EscapeOverlayPath(dir))
				}
				o = "lowerdir=" + strings.Join(dirs, ":")
			}
			options = append(options, o)
		}
		m.Options = append(options, "ro")
		out[i] = m
	}
	return out
}
