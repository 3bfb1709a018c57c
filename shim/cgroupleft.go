package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A cgroup is in use until the kernel has taken its last process apart.
const (
	cgroupBusyLimit = time.Second
	cgroupBusyRetry = 10 * time.Millisecond
)

// removeCgroupLeft removes the cgroups that a bundle's spec names, for an OCI runtime that was killed before it
// noted down what it had made: its delete finds nothing. Those that are in use stay, with an error; that there
// are none is fine.
func removeCgroupLeft(ctx context.Context, bundle string) error {
	path := specCgroup(bundle)
	if path == "" {
		return nil
	}
	dirs, err := cgroupDirs(path)
	if err != nil {
		return fmt.Errorf("find cgroup %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, cgroupBusyLimit)
	defer cancel()
	var errs []error
	for _, d := range dirs {
		errs = append(errs, rmdirPatiently(ctx, d))
	}
	return errors.Join(errs...)
}

func rmdirPatiently(ctx context.Context, dir string) error {
	tick := time.NewTicker(cgroupBusyRetry)
	defer tick.Stop()
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if errors.Is(err, unix.EBUSY) {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
			}
		}
		return &os.PathError{Op: "remove cgroup", Path: dir, Err: err}
	}
}

// cgroupDirs returns where a cgroup of that path is, or would be, in each hierarchy.
func cgroupDirs(path string) ([]string, error) {
	if unifiedHost() {
		return []string{filepath.Join(cgroupMount, path)}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(cgroupMount, e.Name(), path))
		}
	}
	return dirs, nil
}
