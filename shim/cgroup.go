package shim

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

const cgroupMount = "/sys/fs/cgroup"

// cgroup holds the directories of a container's cgroups: one on a unified host (v2), one per
// controller otherwise (v1).
type cgroup struct {
	unified string
	v1      map[string]string // controller -> directory
}

// readCgroup looks up the cgroups of a process. The process must be alive: a dead one is shown
// elsewhere.
func readCgroup(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("find cgroup: %w", err)
	}
	return string(data), nil
}

// exiting reports whether groups, a result of readCgroup, is that of a process that is about to end or not in a
// container: cgroup v1 shows it in the roots only as soon as it begins to end, before it can be collected.
func exiting(groups string) bool {
	for line := range strings.Lines(groups) {
		if !strings.HasSuffix(line, ":/\n") {
			return false
		}
	}
	return groups != ""
}

// memoryCgroup returns, in the form of readCgroup, the memory cgroup that the spec gives the container.
// It serves an init that was killed before it could be looked up. It is empty if the spec alone does
// not determine it.
func memoryCgroup(bundle string, unified bool) string {
	path := specCgroup(bundle)
	switch {
	case path == "":
		return ""
	case unified:
		return "0::" + path + "\n"
	default:
		return "1:memory:" + path + "\n"
	}
}

// specCgroup returns the cgroup in a bundle's spec if that is a path: systemd has names of another form.
func specCgroup(bundle string) string {
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

func unifiedHost() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupMount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// parseCgroup reads /proc/PID/cgroup, by the conventional mount points: lines of ID:CONTROLLERS:PATH.
func parseCgroup(text string, unified bool) cgroup {
	cg := cgroup{}
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		switch {
		case unified && parts[0] == "0":
			cg.unified = filepath.Join(cgroupMount, parts[2])
		case !unified && parts[1] != "":
			for _, c := range strings.Split(parts[1], ",") {
				if cg.v1 == nil {
					cg.v1 = make(map[string]string)
				}
				cg.v1[c] = filepath.Join(cgroupMount, strings.TrimPrefix(c, "name="), parts[2])
			}
		}
	}
	return cg
}

// joinCgroup moves the shim into a cgroup and creates it if it is missing.
func joinCgroup(path string) error {
	dirs, err := cgroupDirs(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		if d == filepath.Join(cgroupMount, "cpuset", path) {
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

// dir returns the directory that represents the container as a whole, or "".
func (c cgroup) dir() string {
	if c.unified != "" {
		return c.unified
	}
	for _, name := range []string{"pids", "memory", "devices", "cpu", "freezer"} {
		if d, ok := c.v1[name]; ok {
			return d
		}
	}
	return ""
}

// dirs returns all directories of the container, without those that are roots of their hierarchies.
func (c cgroup) dirs() (dirs []string) {
	if c.unified != "" && c.unified != cgroupMount {
		dirs = append(dirs, c.unified)
	}
	for controller, dir := range c.v1 {
		if dir != filepath.Join(cgroupMount, strings.TrimPrefix(controller, "name=")) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// pids lists the processes in the cgroup and below it, in ascending order.
func (c cgroup) pids() ([]int, error) {
	root := c.dir()
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

// frozen reports whether the cgroup is frozen or about to be.
func (c cgroup) frozen() bool {
	if c.unified != "" {
		return cgroupDir(c.unified).number("cgroup.freeze") == 1
	}
	d, ok := c.v1["freezer"]
	if !ok {
		return false
	}
	text := strings.TrimSpace(cgroupDir(d).text("freezer.state"))
	return text == "FROZEN" || text == "FREEZING"
}

// oomKills returns the number of processes of the cgroup that the kernel has killed for lack of
// memory.
func (c cgroup) oomKills() (uint64, error) {
	if c.unified != "" {
		return keyedValue(filepath.Join(c.unified, "memory.events"), "oom_kill")
	}
	d, ok := c.v1["memory"]
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

// cgroupDirs returns the directory of a cgroup of that path, present or not, in each hierarchy.
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

// metrics reads the statistics: a v2.Metrics of a unified host, else a v1.Metrics; nil if the cgroup is unknown.
func (c cgroup) metrics() rpc.Message {
	switch {
	case c.unified != "":
		return statsV2(cgroupDir(c.unified))
	case len(c.v1) > 0:
		return statsV1(c.v1)
	}
	return nil
}
