package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// grace is how long the threads of a killed container may take to leave its cgroups.
	grace = 3 * time.Second
	// retry is the interval between attempts during that time.
	retry = 20 * time.Millisecond
)

// RemoveOf waits until the cgroups in a bundle's spec are empty and removes them. Those of systemd are
// left to systemd.
func RemoveOf(ctx context.Context, bundle string) error {
	path := specified(bundle)
	if path == "" || path == "/" {
		return nil
	}
	dirs, err := directories(path)
	if err != nil {
		return fmt.Errorf("find cgroup %s: %w", path, err)
	}
	return Remove(ctx, dirs)
}

// Remove waits until the cgroups at dirs are empty and removes them.
func Remove(ctx context.Context, dirs []string) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for _, dir := range dirs {
		for {
			err := removeTree(dir)
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

// removeTree removes a cgroup with those below it. A missing one counts as removed.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		// Those below belong to the container while it lives.
		if procs, rerr := os.ReadFile(filepath.Join(dir, "cgroup.procs")); rerr == nil && len(procs) == 0 {
			if err := removeBelow(dir); err != nil {
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

func removeBelow(dir string) error {
	below, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range below {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
