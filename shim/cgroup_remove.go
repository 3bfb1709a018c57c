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
	// cgroupGrace is how long the threads of a killed container may take to leave its cgroups.
	cgroupGrace = 3 * time.Second
	// cgroupRetry is the interval between attempts during that time.
	cgroupRetry = 20 * time.Millisecond
)

// forget has the OCI runtime kill and delete a container, and removes the cgroups that remain.
// Idempotent.
//
// runc gives ending threads 150 ms to leave the cgroups, which is too little on a busy machine. Then it fails or,
// depending on its version, reports nothing; it has deleted its state and will not remove them. Nor does it know
// the cgroups created by a runc that was killed before it recorded them.
func (r *ociRuntime) forget(ctx context.Context, id string) error {
	remove := func(ctx context.Context, rt *runc.Runc) error {
		return rt.Delete(ctx, id, &runc.DeleteOpts{Force: true})
	}
	err := r.run(ctx, "delete", remove)
	cerr := removeCgroups(ctx, r.bundle)
	switch {
	case err == nil, errors.Is(err, errdefs.ErrNotFound):
		return nil // a remaining cgroup has other processes in it
	case cerr != nil:
		return errors.Join(err, cerr)
	}
	if again := r.run(ctx, "delete", remove); again != nil && !errors.Is(again, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

// removeCgroups waits until the cgroups in a bundle's spec are empty and removes them. Those of systemd are
// left to systemd.
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

// removeCgroupDirs waits until the cgroups at dirs are empty and removes them.
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

// removeCgroup removes a cgroup with those below it. A missing one counts as removed.
func removeCgroup(dir string) error {
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		// Those below belong to the container while it lives.
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
