package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client/spec"
)

// SpecOptions of Spec.
type SpecOptions struct {
	// Cgroups are the allowed parents of a container's cgroup.
	Cgroups []string
	// Fill adds the default seccomp profile to a spec without one; without Fill that is refused.
	Fill bool
}

// Spec checks an OCI runtime spec and returns its canonical form: a runtime reads exactly what was
// checked.
func (p *Policy) Spec(raw []byte, o SpecOptions) ([]byte, error) {
	var s specs.Spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("OCI spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	if o.Fill && s.Linux.Seccomp == nil && !p.has(Unconfined) {
		profile, err := spec.DefaultSeccomp()
		if err != nil {
			return nil, fmt.Errorf("OCI spec: %w", err)
		}
		s.Linux.Seccomp = profile
	}
	if err := cmp.Or(p.top(&s), p.process(s.Process), p.mounts(s.Mounts), p.linux(s.Linux, o)); err != nil {
		return nil, err
	}
	out, err := json.Marshal(&s)
	if err != nil {
		return nil, fmt.Errorf("OCI spec: %w", err)
	}
	return out, nil
}

// Process checks the process of an exec and returns its canonical form.
func (p *Policy) Process(raw []byte) ([]byte, error) {
	var s specs.Process
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("process: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := p.process(&s); err != nil {
		return nil, err
	}
	out, err := json.Marshal(&s)
	if err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return out, nil
}

// top checks the members of the spec itself.
func (p *Policy) top(s *specs.Spec) error {
	var errs []error
	if r := s.Root; r != nil && path.IsAbs(r.Path) {
		errs = append(errs, p.HostDirectory(r.Path))
	} else if r != nil && r.Path != "" && path.Clean(r.Path) != "rootfs" {
		errs = append(errs, p.Refuse("root.path", "%.200q", r.Path))
	}
	if h := s.Hooks; h != nil {
		errs = append(errs,
			p.none(len(h.Prestart) > 0, "hooks.prestart"), //nolint:staticcheck // deprecated hooks are run as well
			p.none(len(h.CreateRuntime) > 0, "hooks.createRuntime"),
			p.none(len(h.CreateContainer) > 0, "hooks.createContainer"),
			p.none(len(h.StartContainer) > 0, "hooks.startContainer"),
			p.none(len(h.Poststart) > 0, "hooks.poststart"),
			p.none(len(h.Poststop) > 0, "hooks.poststop"),
		)
	}
	return cmp.Or(append(errs,
		p.need(Annotations, len(s.Annotations) > 0, "annotations"),
		p.none(s.VM != nil, "vm"), p.none(s.Windows != nil, "windows"), p.none(s.Solaris != nil, "solaris"),
		p.none(s.ZOS != nil, "zos"), p.none(s.FreeBSD != nil, "freebsd"),
	)...)
}

// process checks a process; nil means none.
func (p *Policy) process(s *specs.Process) error {
	if s == nil {
		return nil
	}
	var errs []error
	if c := s.Capabilities; c != nil {
		for _, set := range []struct {
			name string
			caps []string
		}{
			{"bounding", c.Bounding},
			{"effective", c.Effective},
			{"inheritable", c.Inheritable},
			{"permitted", c.Permitted},
			{"ambient", c.Ambient},
		} {
			if more := beyond(set.caps, spec.DefaultCapabilities()); len(more) > 0 && !p.has(Capabilities) {
				errs = append(errs, p.Refuse("process.capabilities."+set.name, "%.200s", strings.Join(more, ", ")))
			}
		}
	}
	return cmp.Or(append(errs,
		p.need(Unconfined, s.SelinuxLabel != "", "process.selinuxLabel"),
		p.need(Unconfined, s.ApparmorProfile == "unconfined", "process.apparmorProfile"),
		p.none(s.OOMScoreAdj != nil && *s.OOMScoreAdj < 0, "process.oomScoreAdj"),
		p.none(s.Scheduler != nil, "process.scheduler"),
		p.none(s.IOPriority != nil, "process.ioPriority"),
	)...)
}

// beyond returns the names of a set that are not among others, which are in capitals with the prefix CAP_.
func beyond(set, others []string) []string {
	return slices.DeleteFunc(slices.Clone(set), func(name string) bool {
		name = strings.ToUpper(name)
		return slices.Contains(others, name) || slices.Contains(others, "CAP_"+name)
	})
}

// linux checks namespaces, devices and protection of the spec.
func (p *Policy) linux(l *specs.Linux, o SpecOptions) error {
	errs := []error{p.namespaces(l.Namespaces), p.Resources(l.Resources, true), p.protection(l), p.sysctls(l.Sysctl)}
	for _, d := range l.Devices {
		errs = append(errs, p.need(Devices, !harmlessDevice(d.Type, &d.Major, &d.Minor), "linux.devices: "+fmt.Sprintf("%.100q", d.Path)))
	}
	below := func(parent string) bool { return strings.HasPrefix(l.CgroupsPath, parent+"/") }
	if c := l.CgroupsPath; c != "" && (path.Clean(c) != c || !slices.ContainsFunc(o.Cgroups, below)) {
		errs = append(errs, p.Refuse("linux.cgroupsPath", "%.200q is not below %s", c, strings.Join(o.Cgroups, " or ")))
	}
	return cmp.Or(append(errs,
		p.none(len(l.NetDevices) > 0, "linux.netDevices"),
		p.none(l.IntelRdt != nil, "linux.intelRdt"),
		p.none(l.MemoryPolicy != nil, "linux.memoryPolicy"),
		p.need(Unconfined, l.MountLabel != "", "linux.mountLabel"),
		p.none(!slices.Contains([]string{"", "private", "rprivate", "slave", "rslave"}, l.RootfsPropagation), "linux.rootfsPropagation"),
	)...)
}

// protection checks the parts that protect the host's kernel from root of the container.
func (p *Policy) protection(l *specs.Linux) error {
	if p.has(Unconfined) {
		return nil
	}
	return cmp.Or(
		p.missing("linux.maskedPaths", l.MaskedPaths, requiredMasks()),
		p.missing("linux.readonlyPaths", l.ReadonlyPaths, spec.ReadonlyPaths()),
		p.seccomp(l.Seccomp),
	)
}

// missing returns an error if one of the required entries is not in the list.
func (p *Policy) missing(what string, list, required []string) error {
	for _, want := range required {
		if !slices.Contains(list, want) {
			return p.Refuse(what, "%s is missing", want)
		}
	}
	return nil
}

// requiredMasks are the paths that reveal secrets of the host, or give access to its kernel.
func requiredMasks() []string {
	return []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/sys/firmware",
	}
}

// seccomp checks a profile: it must refuse calls that it does not name, and must not allow the calls on keys, which
// are the host's for the same user id.
func (p *Policy) seccomp(s *specs.LinuxSeccomp) error {
	const what = "linux.seccomp"
	if s == nil {
		return p.Refuse(what, "no profile")
	}
	refusing := []specs.LinuxSeccompAction{specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap}
	if !slices.Contains(refusing, s.DefaultAction) {
		return p.Refuse(what+".defaultAction", "%.50q", s.DefaultAction)
	}
	if s.ListenerPath != "" || s.ListenerMetadata != "" {
		return p.Refuse(what+".listenerPath", "")
	}
	for _, c := range s.Syscalls {
		if slices.Contains(refusing, c.Action) {
			continue
		}
		for _, name := range c.Names {
			if slices.Contains([]string{"keyctl", "add_key", "request_key"}, name) {
				return p.Refuse(what+".syscalls", "%s", name)
			}
		}
	}
	return nil
}

// namespaces checks that the container has its own, each of them new.
func (p *Policy) namespaces(list []specs.LinuxNamespace) error {
	own := make(map[specs.LinuxNamespaceType]bool)
	for _, ns := range list {
		own[ns.Type] = true
		if ns.Path == "" {
			continue
		}
		if err := p.source(ns.Path); err != nil {
			return fmt.Errorf("linux.namespaces: %s: %w", ns.Type, err)
		}
	}
	hosts := func(typ specs.LinuxNamespaceType) string {
		return "linux.namespaces: the host's " + string(typ) + " namespace"
	}
	return cmp.Or(
		p.need(HostNetwork, !own[specs.NetworkNamespace], hosts(specs.NetworkNamespace)),
		p.need(HostPID, !own[specs.PIDNamespace], hosts(specs.PIDNamespace)),
		p.need(HostIPC, !own[specs.IPCNamespace], hosts(specs.IPCNamespace)),
		p.need(HostUTS, !own[specs.UTSNamespace], hosts(specs.UTSNamespace)),
		p.need(HostCgroup, unified() && !own[specs.CgroupNamespace], hosts(specs.CgroupNamespace)),
		p.none(!own[specs.MountNamespace], hosts(specs.MountNamespace)),
	)
}

// sysctls checks that parameters are those of the container's own namespaces.
func (p *Policy) sysctls(set map[string]string) error {
	for key := range set {
		name := strings.ReplaceAll(key, "/", ".")
		allowed := strings.HasPrefix(name, "net.") && !p.has(HostNetwork) || strings.HasPrefix(name, "fs.mqueue.") ||
			slices.Contains([]string{
				"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
				"kernel.shmmni", "kernel.shm_rmid_forced",
			}, name)
		if !allowed && !p.has(Sysctls) {
			return p.Refuse("linux.sysctl", "%.100q", key)
		}
	}
	return nil
}
