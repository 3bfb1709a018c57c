package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

const (
	// cgroupGrace is how long the threads of a killed container are given to leave its cgroups.
	cgroupGrace = 3 * time.Second
	// cgroupRetry is how often it is tried meanwhile.
	cgroupRetry = 20 * time.Millisecond
)

// forget has the OCI runtime kill and forget a container, and sees to it that its cgroups go. Idempotent.
//
// runc gives threads that still end 150 ms to leave the cgroups, which is too little on a busy machine. Then
// it fails or, by its version, says nothing; it has forgotten the container, and removes them no more. Nor does it
// know of those that a runc made which was killed before it noted them.
func (r *ociRuntime) forget(ctx context.Context, id string) error {
	remove := func(ctx context.Context, rt *runc.Runc) error {
		return rt.Delete(ctx, id, &runc.DeleteOpts{Force: true})
	}
	err := r.run(ctx, "delete", remove)
	cerr := removeCgroups(ctx, r.bundle)
	switch {
	case err == nil, errors.Is(err, errdefs.ErrNotFound):
		return nil // a cgroup that is left has others in it
	case cerr != nil:
		return errors.Join(err, cerr)
	}
	if again := r.run(ctx, "delete", remove); again != nil && !errors.Is(again, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

// removeCgroups removes the cgroups that a bundle's spec names, once nobody is in them, which it waits for.
// Those of systemd's are left to it.
func removeCgroups(ctx context.Context, bundle string) error {
	path := specCgroup(bundle)
	if path == "" || path == "/" {
		return nil
	}
	dirs, err := cgroupDirs(path)
	if err != nil {
		return fmt.Errorf("find cgroup %s: %w", path, err)
	}
	return removeCgroupDirs(ctx, dirs)
}

// removeCgroupDirs removes the cgroups at dirs, once no process is in them, which it waits for.
func removeCgroupDirs(ctx context.Context, dirs []string) error {
	ctx, cancel := context.WithTimeout(ctx, cgroupGrace)
	defer cancel()
	tick := time.NewTicker(cgroupRetry)
	defer tick.Stop()
	for _, dir := range dirs {
		for {
			err := removeCgroup(dir)
			if err == nil {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeCgroup removes a cgroup with those below it. One that is not there is removed.
func removeCgroup(dir string) error {
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		// Those below are the container's own as long as it lives.
		if procs, rerr := os.ReadFile(filepath.Join(dir, "cgroup.procs")); rerr == nil && len(procs) == 0 {
			if err := removeCgroupsBelow(dir); err != nil {
				return err
			}
			err = unix.Rmdir(dir)
		}
	}
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: err}
}

func removeCgroupsBelow(dir string) error {
	below, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range below {
		if !e.IsDir() {
			continue
		}
		if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
