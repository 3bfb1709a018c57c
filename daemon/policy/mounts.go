package policy

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mounts checks the mounts of a spec. Recursive bind mounts become plain ones: mounts below an allowed
// directory are not checked.
func (p *Policy) mounts(list []specs.Mount) error {
	for i := range list {
		m := &list[i]
		what := fmt.Sprintf("mounts: %.100q", m.Destination)
		if len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 {
			return p.Refuse(what, "id mappings")
		}
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			if err := p.bind(m); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			continue
		}
		if err := p.system(m, what); err != nil {
			return err
		}
	}
	return nil
}

// system checks a mount other than of the host's files.
func (p *Policy) system(m *specs.Mount, what string) error {
	for _, o := range m.Options {
		if !harmlessOption(o) {
			return p.Refuse(what, "option %.50q", o)
		}
	}
	at := path.Clean("/" + m.Destination)
	readOnly := slices.Contains(m.Options, "ro") && !slices.Contains(m.Options, "rw")
	switch m.Type {
	case "tmpfs", "devpts", "mqueue":
		return nil
	case "proc":
		return p.need(Unconfined, at != "/proc", what+": proc outside of /proc")
	case "sysfs":
		return p.need(Unconfined, at != "/sys" || !readOnly, what+": sysfs outside of /sys, or writable")
	case "cgroup", "cgroup2":
		return p.need(HostCgroup, !readOnly, what+": writable cgroups")
	}
	return p.Refuse(what, "type %.50q", m.Type)
}

// harmlessOption reports whether a mount other than of the host's files may have an option. One that changes another
// mount is not harmless: remount makes a lower read-only one writable.
func harmlessOption(option string) bool {
	name, _, hasValue := strings.Cut(option, "=")
	if hasValue {
		return slices.Contains([]string{
			"mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "ptmxmode", "max", "hidepid", "subset",
		}, name)
	}
	return slices.Contains([]string{
		"ro", "rw", "nosuid", "nodev", "noexec", "exec", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
		"strictatime", "nostrictatime", "sync", "async", "defaults", "newinstance", "tmpcopyup", "inode64", "inode32",
		"private", "rprivate", "slave", "rslave",
	}, name)
}

// bind checks a mount of the host's files.
func (p *Policy) bind(m *specs.Mount) error {
	for i, o := range m.Options {
		switch o {
		case "rbind":
			m.Options[i] = "bind"
		case "bind", "ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime",
			"private", "rprivate", "slave", "rslave":
		default:
			return p.Refuse("option", "%.50q", o)
		}
	}
	if err := p.source(m.Source); err != nil {
		return err
	}
	ro := slices.Contains(m.Options, "ro") && !slices.Contains(m.Options, "rw")
	if ro || inert(m.Source) {
		return nil
	}
	return p.Refuse("source", "%.200q is writable, and its file system is not mounted with nosuid and nodev", m.Source)
}

// HostDirectory checks a directory of the host that a container writes to.
func (p *Policy) HostDirectory(dir string) error {
	if err := p.source(dir); err != nil {
		return err
	}
	if !inert(dir) {
		return p.Refuse("source", "%.200q is writable, and its file system is not mounted with nosuid and nodev", dir)
	}
	return nil
}

// inert reports whether set-user-id programs and devices that a container creates in a directory have no effect on the
// host.
func inert(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOSUID != 0 && st.Flags&unix.ST_NODEV != 0
}

// source checks a path of the host: below an allowed directory, without links, and no part of it can be replaced by
// anyone but root between this check and its use.
func (p *Policy) source(name string) error {
	within := func(dir string) bool { return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") }
	if !filepath.IsAbs(name) || filepath.Clean(name) != name || !slices.ContainsFunc(p.Mounts, within) {
		return p.Refuse("source", "%.200q", name)
	}
	info, err := os.Lstat(name)
	if err != nil {
		return p.Refuse("source", "%.200q: %v", name, err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return p.Refuse("source", "%.200q is a link", name)
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil || !fixed(info) {
			return p.Refuse("source", "%.200q: users other than root can replace entries of %.200q", name, dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

// fixed reports whether only root can change the entries of a directory.
func fixed(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && st.Uid == 0 && info.Mode().Perm()&0o022 == 0
}
