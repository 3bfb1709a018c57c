package spec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts returns the defaults, those for the network and the image's volumes, and the caller's. A mount
// of the caller replaces a default one; parents come before mounts below them.
func mounts(image Image, o Options) []specs.Mount {
	out := systemMounts(o.Privileged)
	if o.Network == "host" {
		out = append(out, resolverMounts()...)
	}
	if o.ReadOnly {
		out = append(out, volumeMounts(image)...)
	}
	own := map[string]bool{}
	for _, m := range o.Mounts {
		own[m.Destination] = true
	}
	out = slices.DeleteFunc(out, func(m specs.Mount) bool { return own[m.Destination] })
	callers := slices.Clone(o.Mounts)
	slices.SortStableFunc(callers, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return append(out, callers...)
}

func depth(path string) int { return strings.Count(filepath.Clean(path), "/") }

func systemMounts(privileged bool) []specs.Mount {
	access := "ro"
	if privileged {
		access = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"},
		},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", access},
		},
	}
}

// resolverMounts make a container on the host's network resolve names as the host does.
func resolverMounts() []specs.Mount {
	var out []specs.Mount
	for _, path := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if _, err := os.Stat(path); err == nil {
			out = append(out, specs.Mount{
				Destination: path, Type: "bind", Source: path, Options: []string{"rbind", "rprivate", "ro"},
			})
		}
	}
	return out
}

// volumeMounts keep an image's volumes writable on a read-only root, with the image's content there.
func volumeMounts(image Image) []specs.Mount {
	var out []specs.Mount
	for path := range image.Volumes {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			continue
		}
		out = append(out, specs.Mount{
			Destination: filepath.Clean(path), Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "nodev", "mode=755", "tmpcopyup"},
		})
	}
	slices.SortFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return out
}

func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
