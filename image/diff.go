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

// Diff writes the changes from left to right as a layer that is not compressed. left may be empty.
// If right is an overlay directly above left, only its upper directory is read; otherwise both are
// mounted read-only and compared. left must not be written to during the call; see archive.Diff for
// changes to right.
func Diff(ctx context.Context, w io.Writer, left, right []mount.Mount, opts archive.DiffOptions) (err error) {
	if len(right) == 0 {
		return invalidf("diff: no mounts")
	}
	if upper, lower, ok := directlyOn(left, right); ok {
		return archive.DiffOverlay(ctx, w, lower, upper, opts)
	}
	lower, done, err := attach(left)
	if err != nil {
		return fmt.Errorf("diff: attach the left side: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	upper, done2, err := attach(right)
	if err != nil {
		return fmt.Errorf("diff: attach the right side: %w", err)
	}
	defer func() { err = errors.Join(err, done2()) }()
	return archive.Diff(ctx, w, lower, upper, opts)
}

// ReadsUpperAlone reports whether Diff of these mounts reads only an overlay's upper directory.
func ReadsUpperAlone(left, right []mount.Mount) bool {
	_, _, ok := directlyOn(left, right)
	return ok
}

// directlyOn reports whether right is an overlay directly above left, with a self-contained upper
// directory: metadata-only copies and redirected names refer to the lower directories.
func directlyOn(left, right []mount.Mount) (upper, lower string, ok bool) {
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

// refersBelow matches the overlay's options by which files of the upper directory refer to lower ones.
func refersBelow(option string) bool {
	return option == "metacopy=on" || option == "redirect_dir=on" || strings.HasPrefix(option, "datadir")
}

// attach attaches mounts for reading and returns the directory; "" for no mounts.
func attach(mounts []mount.Mount) (dir string, done func() error, err error) {
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

// readOnly returns the mounts in their read-only form. An overlay's upper directory becomes the topmost
// lower one: it may be in use by a writable mount, and a second one of that is not allowed.
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
