package containers

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/userdb"
	"github.com/cleatproject/cleat/mount"
)

// resolveUser looks up USER[:GROUP] in the passwd and group files of a root file system: those of mounts, without
// mounting them anywhere, or of the directory rootfs.
func resolveUser(ctx context.Context, mounts []mount.Mount, rootfs, user string) (_ userdb.Identity, err error) {
	if err := ctx.Err(); err != nil {
		return userdb.Identity{}, err
	}
	root, err := openRoot(mounts, rootfs)
	if err != nil {
		return userdb.Identity{}, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return userdb.Lookup(root, user)
}

// openRoot returns the root directory as a descriptor.
func openRoot(mounts []mount.Mount, rootfs string) (*os.File, error) {
	if rootfs != "" {
		f, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open root file system: %w: %w", err, errdefs.ErrNotFound)
		}
		return f, nil
	}
	f, err := mount.Detached(mount.ToLook(mounts))
	if err != nil {
		return nil, fmt.Errorf("look into root file system: %w", err)
	}
	return f, nil
}
