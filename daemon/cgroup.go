package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cgroupMount is the mount point of the host's cgroups.
const cgroupMount = "/sys/fs/cgroup"

// joinCgroup moves this process to a cgroup, in every hierarchy of the host.
func joinCgroup(path string) error {
	if path == "" {
		return nil
	}
	roots := []string{cgroupMount}
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err != nil { // version 1
		entries, err := os.ReadDir(cgroupMount)
		if err != nil {
			return fmt.Errorf("move to cgroup %s: %w", path, err)
		}
		roots = roots[:0]
		for _, e := range entries {
			if e.IsDir() {
				roots = append(roots, filepath.Join(cgroupMount, e.Name()))
			}
		}
	}
	var errs error
	for _, root := range roots {
		errs = errors.Join(errs, enterCgroup(root, path))
	}
	if errs != nil {
		return fmt.Errorf("move to cgroup %s: %w", path, errs)
	}
	return nil
}

// enterCgroup moves this process to the cgroup of a path in one hierarchy.
func enterCgroup(root, path string) error {
	dir := root
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inheritCpuset(parent, dir, file); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644)
}

// inheritCpuset copies a setting of its parent to a cgroup of version 1: while it has none, no process can
// be added.
func inheritCpuset(parent, dir, file string) error {
	own, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || len(strings.TrimSpace(string(own))) > 0 {
		return nil //nolint:nilerr // another controller
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
		return nil // version 2: empty means the parent's
	}
	value, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), value, 0o644)
}
