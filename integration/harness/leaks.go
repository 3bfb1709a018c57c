package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NoRemains fails the test if an operation left containers or anything that Leaks finds.
func (d *Daemon) NoRemains(what string) {
	d.T.Helper()
	if ids := d.Cleat("ps", "--all", "--quiet"); ids != "" {
		d.T.Fatalf("%s: containers are left: %s", what, ids)
	}
	d.Eventually(what+" leaves nothing", d.Leaks)
}

// Tree lists two levels of directories.
func (d *Daemon) Tree(dir string) string {
	d.T.Helper()
	var lines []string
	Must(d.T, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return IgnoreGone(err)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		lines = append(lines, rel)
		if e.IsDir() && strings.Count(rel, "/") >= 2 {
			return fs.SkipDir
		}
		return nil
	}))
	return strings.Join(lines, "\n")
}

// Leaks returns an error if a daemon without containers still has any of these: processes, mounts, cgroups, bundles,
// sockets, OCI runtime state, snapshots of containers, logs, FIFOs.
func (d *Daemon) Leaks() error {
	return errors.Join(
		d.LeakedProcesses(), d.leakedMounts(), d.leakedCgroups(),
		Empty(filepath.Join(d.State, "io.containerd.runtime.v2.task"), 2),
		Empty(filepath.Join(d.State, "s"), 1),
		Empty(filepath.Join(d.State, "runc"), 2),
		Empty(filepath.Join(d.State, "fifo"), 1),
		Empty(filepath.Join(d.Root, "io.containerd.runtime.v2.task"), 2),
		Empty(filepath.Join(d.Root, "logs"), 2),
		Empty(filepath.Join(d.Root, "content", "ingest"), 1),
	)
}

// leaksAfterStop adds the checks that need a stopped daemon.
func (d *Daemon) leaksAfterStop() error {
	var errs error
	for _, sock := range []string{d.Address, d.Address + ".ttrpc"} {
		if _, err := os.Lstat(sock); err == nil {
			errs = errors.Join(errs, fmt.Errorf("socket %s is left", sock))
		}
	}
	return errors.Join(errs, d.LeakedProcesses(), d.leakedMounts())
}

// LeakedProcesses finds processes with the state directory on their command line, which every shim and every OCI
// runtime has.
func (d *Daemon) LeakedProcesses() error {
	processes, errs := d.processes()
	for _, p := range processes {
		line := strings.Join(p.args, " ")
		if !strings.Contains(line, "--log-level debug") && !strings.HasPrefix(line, Binary("cleat")+" ") {
			errs = errors.Join(errs, fmt.Errorf("process %d is left: %s", p.pid, line))
		}
	}
	return errs
}

// Cgroup is the parent of this daemon's cgroups, as configured by default.
func (d *Daemon) Cgroup() string {
	sum := sha256.Sum256([]byte(d.Root + "\x00" + d.State))
	return "/cleat-" + hex.EncodeToString(sum[:4])
}

func (d *Daemon) leakedMounts() error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs error
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == d.Root || f[4] == d.State) {
			continue // the test's own
		}
		if strings.Contains(line, d.State) || strings.Contains(line, d.Root) {
			errs = errors.Join(errs, fmt.Errorf("mount is left: %s", strings.TrimSpace(line)))
		}
	}
	return errs
}

// leakedCgroups finds cgroups below this daemon's own, two levels down: namespace and container.
func (d *Daemon) leakedCgroups() error {
	var errs error
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		dirs, err := filepath.Glob(filepath.Join(pattern, d.Cgroup(), "*", "*"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if info, err := os.Lstat(dir); err == nil && info.IsDir() {
				errs = errors.Join(errs, fmt.Errorf("cgroup is left: %s", dir))
			}
		}
	}
	return errs
}

// Empty returns an error for each entry exactly depth levels below dir.
func Empty(dir string, depth int) error {
	var errs error
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if n := strings.Count(rel, "/") + 1; rel != "." && n == depth {
			errs = errors.Join(errs, fmt.Errorf("%s is left", path))
			if e.IsDir() {
				return fs.SkipDir
			}
		}
		return nil
	})
	return errors.Join(errs, err)
}
