// Package cgroup finds, reads and removes the cgroups of a container, on cgroup v2 and v1.
//
// A container's cgroups are those of its init, read while that lives (Read, Parse). A process that is about to end is
// shown in the roots on v1 (Exiting); then only the spec determines them. Files that the kernel does not have read as empty, so
// that statistics are complete as far as the kernel has them. Removal waits a moment for ending threads, and refuses a
// cgroup with processes in it.
package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/rpc"
)

const mountPoint = "/sys/fs/cgroup"

// Group holds the directories of a container's cgroups: one on a unified host (v2), one per
// controller otherwise (v1).
type Group struct {
	Unified string
	V1      map[string]string // controller -> directory
}

// Read looks up the cgroups of a process. The process must be alive: a dead one is shown
// elsewhere.
func Read(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("find cgroup: %w", err)
	}
	return string(data), nil
}

// Exiting reports whether groups, a result of Read, is that of a process that is about to end or not in a
// container: cgroup v1 shows it in the roots only as soon as it begins to end, before it can be collected.
func Exiting(groups string) bool {
	for line := range strings.Lines(groups) {
		if !strings.HasSuffix(line, ":/\n") {
			return false
		}
	}
	return groups != ""
}

// MemoryOf returns, in the form of Read, the memory cgroup that the spec gives the container.
// It serves an init that was killed before it could be looked up. It is empty if the spec alone does
// not determine it.
func MemoryOf(bundle string, unified bool) string {
	path := specified(bundle)
	switch {
	case path == "":
		return ""
	case unified:
		return "0::" + path + "\n"
	default:
		return "1:memory:" + path + "\n"
	}
}

// specified returns the cgroup in a bundle's spec if that is a path: systemd has names of another form.
func specified(bundle string) string {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return ""
	}
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if json.Unmarshal(data, &spec) != nil || !filepath.IsAbs(spec.Linux.CgroupsPath) {
		return ""
	}
	return filepath.Clean(spec.Linux.CgroupsPath) // nothing above the root
}

// UnifiedHost reports whether the host has cgroup v2 alone.
func UnifiedHost() bool {
	var st unix.Statfs_t
	return unix.Statfs(mountPoint, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Parse reads /proc/PID/cgroup, by the conventional mount points: lines of ID:CONTROLLERS:PATH.
func Parse(text string, unified bool) Group {
	cg := Group{}
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		switch {
		case unified && parts[0] == "0":
			cg.Unified = filepath.Join(mountPoint, parts[2])
		case !unified && parts[1] != "":
			for _, c := range strings.Split(parts[1], ",") {
				if cg.V1 == nil {
					cg.V1 = make(map[string]string)
				}
				cg.V1[c] = filepath.Join(mountPoint, strings.TrimPrefix(c, "name="), parts[2])
			}
		}
	}
	return cg
}

// Join moves the shim into a cgroup and creates it if it is missing.
func Join(path string) error {
	dirs, err := directories(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		if d == filepath.Join(mountPoint, "cpuset", path) {
			continue // which needs its cpus set first
		}
		err := os.MkdirAll(d, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte("0"), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// main returns the directory that represents the container as a whole, or "".
func (c Group) main() string {
	if c.Unified != "" {
		return c.Unified
	}
	for _, name := range []string{"pids", "memory", "devices", "cpu", "freezer"} {
		if d, ok := c.V1[name]; ok {
			return d
		}
	}
	return ""
}

// Dirs returns all directories of the container, without those that are roots of their hierarchies.
func (c Group) Dirs() (dirs []string) {
	if c.Unified != "" && c.Unified != mountPoint {
		dirs = append(dirs, c.Unified)
	}
	for controller, dir := range c.V1 {
		if dir != filepath.Join(mountPoint, strings.TrimPrefix(controller, "name=")) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Pids lists the processes in the cgroup and below it, in ascending order.
func (c Group) Pids() ([]int, error) {
	root := c.main()
	if root == "" {
		return nil, fmt.Errorf("cgroup: %w", os.ErrNotExist)
	}
	var pids []int
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			if errors.Is(err, os.ErrNotExist) && path != root {
				return nil // a group that has just gone
			}
			return err
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroup: %w", err)
	}
	sort.Ints(pids)
	return pids, nil
}

// Frozen reports whether the cgroup is frozen or about to be.
func (c Group) Frozen() bool {
	if c.Unified != "" {
		return files(c.Unified).number("cgroup.freeze") == 1
	}
	d, ok := c.V1["freezer"]
	if !ok {
		return false
	}
	text := strings.TrimSpace(files(d).text("freezer.state"))
	return text == "FROZEN" || text == "FREEZING"
}

// OOMKills returns the number of processes of the cgroup that the kernel has killed for lack of
// memory.
func (c Group) OOMKills() (uint64, error) {
	if c.Unified != "" {
		return keyedValue(filepath.Join(c.Unified, "memory.events"), "oom_kill")
	}
	d, ok := c.V1["memory"]
	if !ok {
		return 0, nil
	}
	return keyedValue(filepath.Join(d, "memory.oom_control"), "oom_kill")
}

// keyedValue reads one number of a flat keyed file; a missing key is 0.
func keyedValue(path, key string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read cgroup: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && name == key {
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s of %s: %w", key, path, err)
			}
			return n, nil
		}
	}
	return 0, nil
}

// directories returns the directory of a cgroup of that path, present or not, in each hierarchy.
func directories(path string) ([]string, error) {
	if UnifiedHost() {
		return []string{filepath.Join(mountPoint, path)}, nil
	}
	entries, err := os.ReadDir(mountPoint)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(mountPoint, e.Name(), path))
		}
	}
	return dirs, nil
}

// Metrics reads the statistics: a v2.Metrics of a unified host, else a v1.Metrics; nil if the cgroup is unknown.
func (c Group) Metrics() rpc.Message {
	switch {
	case c.Unified != "":
		return statsV2(files(c.Unified))
	case len(c.V1) > 0:
		return statsV1(c.V1)
	}
	return nil
}
