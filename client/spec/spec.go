// Package spec generates the OCI runtime spec of a container from its image's configuration and the
// caller's options.
//
// The container gets namespaces of its own (pid, ipc, uts, mount, cgroup, and network unless the
// host's or another is requested), the usual file systems below /proc, /dev and /sys with the
// dangerous parts masked or read-only, fourteen capabilities, a seccomp profile that allows the calls of
// ordinary programs, and only harmless devices. Privileged disables the
// protection.
//
// The daemon completes the spec with values that only it knows: root.path, linux.cgroupsPath, and the ids of a
// user given by name. Labels of the image are ignored: an image must not control
// the manager.
package spec

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// version is the version of the specification that the oldest runtime in use supports.
const version = "1.0.2"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options of Generate; the zero value runs the image's own command with the defaults.
type Options struct {
	// Args replace the image's Cmd, behind its Entrypoint.
	Args []string
	// Entrypoint, if not nil, replaces the image's Entrypoint and drops its Cmd.
	Entrypoint []string
	// Env overrides the image's, NAME=value each; a bare NAME removes it.
	Env []string
	// WorkDir replaces the image's; absolute.
	WorkDir string
	// Hostname of the container; empty: the uts namespace's own.
	Hostname string
	Terminal bool
	// ReadOnly makes the root file system read-only; volumes of the image become tmpfs.
	ReadOnly bool
	// Network is none (or empty), host, or ns:PATH.
	Network string
	// UIDMappings and GIDMappings, if there are any, give the container a user namespace. The
	// daemon maps the owners of the image's files to its users.
	UIDMappings, GIDMappings []specs.LinuxIDMapping

	Mounts []specs.Mount
	Limits Limits
	// CapAdd and CapDrop name capabilities with or without CAP_, in any case, or ALL.
	CapAdd, CapDrop []string
	// Privileged grants every capability and device and removes every protection.
	Privileged bool
	// NoNewPrivileges disables the effect of set-user-id programs.
	NoNewPrivileges bool
	// NoSeccomp omits the system call filter.
	NoSeccomp bool
}

// Limits of resources; zero means none.
type Limits struct {
	// Memory in bytes.
	Memory int64
	// CPUs is the number of processors that may be used, 0.5 for half of one; at least 0.01.
	CPUs float64
	// Pids is the maximal number of processes and threads.
	Pids int64
}

// Generate returns the spec. An invalid request is errdefs.ErrInvalidArgument.
func Generate(image Image, o Options) (*specs.Spec, error) {
	process, err := process(image, o)
	if err != nil {
		return nil, err
	}
	namespaces, err := namespaces(o.Network)
	if err != nil {
		return nil, err
	}
	resources, err := resources(o.Limits)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  version,
		Process:  process,
		Root:     &specs.Root{Path: "rootfs", Readonly: o.ReadOnly},
		Hostname: o.Hostname,
		Mounts:   mounts(image, o),
		Linux: &specs.Linux{
			Namespaces: namespaces,
			Resources:  resources,
		},
	}
	if len(o.UIDMappings) > 0 || len(o.GIDMappings) > 0 {
		if err := mapUsers(s.Linux, o); err != nil {
			return nil, err
		}
	}
	if o.Privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		s.Linux.Devices, err = hostDevices("/dev")
		return s, err
	}
	s.Linux.MaskedPaths = maskedPaths()
	s.Linux.ReadonlyPaths = readonlyPaths()
	if !o.NoSeccomp {
		s.Linux.Seccomp, err = seccomp(process.Capabilities.Bounding)
	}
	return s, err
}

// mapUsers gives the container a user namespace.
func mapUsers(l *specs.Linux, o Options) error {
	if len(o.UIDMappings) == 0 || len(o.GIDMappings) == 0 {
		return invalid("user namespace without mappings of both users and groups")
	}
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings, l.GIDMappings = o.UIDMappings, o.GIDMappings
	return nil
}

// ParseIDMapping parses CONTAINER:HOST:SIZE.
func ParseIDMapping(text string) (specs.LinuxIDMapping, error) {
	var numbers [3]uint32
	fields := strings.Split(text, ":")
	for i := range numbers {
		if len(fields) != len(numbers) {
			return specs.LinuxIDMapping{}, invalid("id mapping %q: want CONTAINER:HOST:SIZE", text)
		}
		n, err := strconv.ParseUint(fields[i], 10, 31)
		if err != nil {
			return specs.LinuxIDMapping{}, invalid("id mapping %q: want CONTAINER:HOST:SIZE", text)
		}
		numbers[i] = uint32(n)
	}
	if numbers[2] == 0 {
		return specs.LinuxIDMapping{}, invalid("id mapping %q maps nothing", text)
	}
	return specs.LinuxIDMapping{ContainerID: numbers[0], HostID: numbers[1], Size: numbers[2]}, nil
}

func process(image Image, o Options) (*specs.Process, error) {
	args, err := arguments(image, o)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(o)
	if err != nil {
		return nil, err
	}
	dir := o.WorkDir
	if dir == "" {
		dir = path.Join("/", image.WorkingDir) // images have relative ones
	}
	if !strings.HasPrefix(dir, "/") {
		return nil, invalid("working directory %q: want an absolute path", dir)
	}
	return &specs.Process{
		Terminal:        o.Terminal,
		Args:            args,
		Env:             environment(image, o),
		Cwd:             dir,
		Capabilities:    caps,
		NoNewPrivileges: o.NoNewPrivileges,
	}, nil
}

func arguments(image Image, o Options) ([]string, error) {
	entry, cmd := image.Entrypoint, image.Cmd
	if o.Entrypoint != nil {
		entry, cmd = o.Entrypoint, nil
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	args := append(append([]string{}, entry...), cmd...)
	if len(args) == 0 {
		return nil, invalid("no command: none given, and none in the image")
	}
	return args, nil
}

// environment returns the defaults, the image's variables and the caller's, later ones taking precedence.
func environment(image Image, o Options) []string {
	env := []string{defaultPath}
	if o.Hostname != "" {
		env = append(env, "HOSTNAME="+o.Hostname)
	}
	if o.Terminal {
		env = append(env, "TERM=xterm")
	}
	return MergeEnv(MergeEnv(env, image.Env), o.Env)
}

// MergeEnv returns base with the variables of over added or replaced; a bare NAME removes the variable, and one
// without a name is dropped. Each is contained
// once.
func MergeEnv(base, over []string) []string {
	out := make([]string, 0, len(base)+len(over))
	at := make(map[string]int, cap(out)) // index of a name's variable
	for _, kv := range slices.Concat(base, over) {
		name, _, hasValue := strings.Cut(kv, "=")
		if name == "" {
			continue // an OCI runtime refuses it
		}
		i, have := at[name]
		switch {
		case have && hasValue:
			out[i] = kv
		case have:
			out[i] = "" // removed below, so that the others keep their index
			delete(at, name)
		case hasValue:
			at[name] = len(out)
			out = append(out, kv)
		}
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
}

func namespaces(network string) ([]specs.LinuxNamespace, error) {
	ns := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	file, joins := strings.CutPrefix(network, "ns:")
	switch {
	case network == "host":
		return ns, nil
	case network == "" || network == "none":
		return append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace}), nil
	case joins && strings.HasPrefix(file, "/"):
		return append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: file}), nil
	default:
		return nil, invalid("network %q: want host, none or ns:/PATH", network)
	}
}

// cpuPeriod is the scheduler's period in microseconds that CPUs are a share of. The kernel accepts no share
// below a millisecond, and none outside minCPUs and maxCPUs.
const (
	cpuPeriod = 100_000
	minCPUs   = 0.01
	maxCPUs   = 1 << 16
)

func resources(l Limits) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if l.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
	}
	if l.CPUs != 0 {
		if !(l.CPUs >= minCPUs && l.CPUs <= maxCPUs) { // so that NaN is refused as well
			return nil, invalid("processors %v: want a number from %v to %d, or 0 for no limit", l.CPUs, minCPUs, maxCPUs)
		}
		quota, period := int64(l.CPUs*cpuPeriod), uint64(cpuPeriod)
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if l.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.Pids}
	}
	return r, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}
