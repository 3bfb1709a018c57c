package archive

import (
	"context"
	"errors"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// relinked returns the files of the upper tree, by device and inode, whose names differ from
// the names of one file in the lower tree: all of these names have to be written, the first with the
// contents, or one file would become several.
func relinked(ctx context.Context, low, up int) (map[[2]uint64]bool, error) {
	above, err := groups(ctx, up)
	if err != nil || len(above) == 0 {
		return nil, err
	}
	below, err := groups(ctx, low)
	if err != nil {
		return nil, err
	}
	byPath := make(map[string]map[string]bool)
	for _, paths := range below {
		for path := range paths {
			byPath[path] = paths
		}
	}
	changed := make(map[[2]uint64]bool)
	for id, paths := range above {
		if len(paths) < 2 {
			continue // all other names are outside the tree
		}
		for path := range paths {
			changed[id] = !maps.Equal(byPath[path], paths)
			break // any of them will do
		}
	}
	return changed, nil
}

// groups returns the paths of every file that has several names in a tree, by device and inode.
func groups(ctx context.Context, dir int) (map[[2]uint64]map[string]bool, error) {
	out := make(map[[2]uint64]map[string]bool)
	return out, collect(ctx, dir, "", out)
}

func collect(ctx context.Context, dir int, path string, out map[[2]uint64]map[string]bool) error {
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		full := join(path, name)
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // removed since it was listed
		}
		if err != nil {
			return &os.PathError{Op: "lstat", Path: full, Err: err}
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			sub, err := openDir(dir, name)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue // no longer a directory
			}
			if err != nil {
				return err
			}
			err = collect(ctx, sub, full, out)
			if err := errors.Join(err, unix.Close(sub)); err != nil {
				return err
			}
		case st.Nlink > 1:
			id := [2]uint64{st.Dev, st.Ino}
			if out[id] == nil {
				out[id] = make(map[string]bool)
			}
			out[id][full] = true
		}
	}
	return nil
}
