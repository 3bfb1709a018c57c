package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/proto/reason"
)

const user = 12345

func harmless(t *testing.T) *specs.Spec {
	t.Helper()
	s, err := spec.Generate(spec.Image{}, spec.Options{Args: []string{"true"}, Hostname: "one", Limits: spec.Limits{Memory: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options() SpecOptions { return SpecOptions{Cgroups: []string{"/mine"}} }

func check(t *testing.T, p *Policy, s *specs.Spec) ([]byte, error) {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return p.Spec(raw, options())
}

func ptr[T any](v T) *T { return &v }

// violation is a part of a spec that a policy refuses.
type violation struct {
	// field is the path in the spec, as in the error.
	field  string
	change func(*specs.Spec)
	// flag allows it; empty for none.
	flag Flag
}

func without(typ specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == typ })
	}
}

func mounted(m specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
}

func hook(into func(*specs.Hooks) *[]specs.Hook) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{}
		*into(s.Hooks) = []specs.Hook{{Path: "/bin/sh"}}
	}
}

func violations() []violation {
	admin := []string{"CAP_SYS_ADMIN"}
	return slices.Concat([]violation{
		{"root.path", func(s *specs.Spec) { s.Root.Path = "../../etc" }, ""},
		{"source", func(s *specs.Spec) { s.Root.Path = "/" }, ""},
		{"hooks.prestart", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }), ""}, //nolint:staticcheck // deprecated hooks are run as well
		{"hooks.createRuntime", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }), ""},
		{"hooks.createContainer", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }), ""},
		{"hooks.startContainer", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }), ""},
		{"hooks.poststart", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }), ""},
		{"hooks.poststop", hook(func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop }), ""},
		{"annotations", func(s *specs.Spec) { s.Annotations = map[string]string{"org.criu.config": "/x"} }, Annotations},
		{"vm", func(s *specs.Spec) { s.VM = &specs.VM{} }, ""},
		{"windows", func(s *specs.Spec) { s.Windows = &specs.Windows{} }, ""},
		{"solaris", func(s *specs.Spec) { s.Solaris = &specs.Solaris{} }, ""},
		{"zos", func(s *specs.Spec) { s.ZOS = &specs.ZOS{} }, ""},
		{"freebsd", func(s *specs.Spec) { s.FreeBSD = &specs.FreeBSD{} }, ""},
		{"process.capabilities.bounding", func(s *specs.Spec) { s.Process.Capabilities.Bounding = admin }, Capabilities},
		{"process.capabilities.effective", func(s *specs.Spec) { s.Process.Capabilities.Effective = admin }, Capabilities},
		{"process.capabilities.inheritable", func(s *specs.Spec) { s.Process.Capabilities.Inheritable = admin }, Capabilities},
		{"process.capabilities.permitted", func(s *specs.Spec) { s.Process.Capabilities.Permitted = admin }, Capabilities},
		{"process.capabilities.ambient", func(s *specs.Spec) { s.Process.Capabilities.Ambient = admin }, Capabilities},
		{"process.selinuxLabel", func(s *specs.Spec) { s.Process.SelinuxLabel = "spc_t" }, Unconfined},
		{"process.apparmorProfile", func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" }, Unconfined},
		{"process.oomScoreAdj", func(s *specs.Spec) { s.Process.OOMScoreAdj = ptr(-1000) }, ""},
		{"process.scheduler", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} }, ""},
		{"process.ioPriority", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} }, ""},
	}, mountViolations(), linuxViolations())
}

func mountViolations() []violation {
	return []violation{
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "bind", Source: "/etc", Options: []string{"bind", "ro"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Source: "/etc", Options: []string{"rbind"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "ext4", Source: "/dev/sda1"}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir=/etc"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", GIDMappings: []specs.LinuxIDMapping{{Size: 1}}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"rshared"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/sys", Type: "tmpfs", Options: []string{"remount"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"context=spc_t"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"rro"}}), ""},
		{"mounts", mounted(specs.Mount{Destination: "/p", Type: "proc"}), Unconfined},
		{"mounts", mounted(specs.Mount{Destination: "/s", Type: "sysfs", Options: []string{"ro"}}), Unconfined},
		{"mounts", mounted(specs.Mount{Destination: "/sys", Type: "sysfs", Options: []string{"ro", "rw"}}), Unconfined},
		{"mounts", mounted(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup"}), HostCgroup},
	}
}

func linuxViolations() []violation {
	join := func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/mnt" }
	devices := func(rules ...specs.LinuxDeviceCgroup) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Resources.Devices = rules }
	}
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	return []violation{
		{"linux.namespaces", join, ""},
		{"linux.namespaces", without(specs.MountNamespace), ""},
		{"linux.namespaces", without(specs.NetworkNamespace), HostNetwork},
		{"linux.namespaces", without(specs.PIDNamespace), HostPID},
		{"linux.namespaces", without(specs.IPCNamespace), HostIPC},
		{"linux.namespaces", without(specs.UTSNamespace), HostUTS},
		{"linux.sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/x"} }, Sysctls},
		{"linux.resources.devices", devices(), Devices},
		{"linux.resources.devices", devices(specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}), Devices},
		{"linux.resources.devices", devices(deny, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: ptr(int64(8)), Minor: ptr(int64(0)), Access: "r"}), Devices},
		{"linux.resources.devices", devices(deny, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Access: "rw"}), Devices},
		{"linux.resources.unified", func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{"cgroup.procs": "1"} }, ""},
		{"linux.resources.unified", func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{"memory./../x": "1"} }, ""},
		{"linux.resources.cpu.realtimeRuntime", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{RealtimeRuntime: ptr(int64(1))} }, ""},
		{"linux.resources.memory.disableOOMKiller", func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{DisableOOMKiller: ptr(true)} }, ""},
		{"linux.resources.network", func(s *specs.Spec) { s.Linux.Resources.Network = &specs.LinuxNetwork{} }, ""},
		{"linux.resources.hugepageLimits", func(s *specs.Spec) {
			s.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "../x"}}
		}, ""},
		{"linux.cgroupsPath", func(s *specs.Spec) { s.Linux.CgroupsPath = "/system.slice/sshd.service" }, ""},
		{"linux.cgroupsPath", func(s *specs.Spec) { s.Linux.CgroupsPath = "/mine/../system.slice" }, ""},
		{"linux.cgroupsPath", func(s *specs.Spec) { s.Linux.CgroupsPath = "system.slice:a:b" }, ""},
		{"linux.devices", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8}} }, Devices},
		{"linux.netDevices", func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }, ""},
		{"linux.seccomp", func(s *specs.Spec) { s.Linux.Seccomp = nil }, Unconfined},
		{"linux.seccomp.defaultAction", func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = specs.ActAllow }, Unconfined},
		{"linux.seccomp.listenerPath", func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/run/x.sock" }, Unconfined},
		{"linux.seccomp.syscalls", func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"keyctl"}, Action: specs.ActAllow})
		}, Unconfined},
		{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "rshared" }, ""},
		{"linux.maskedPaths", func(s *specs.Spec) { s.Linux.MaskedPaths = nil }, Unconfined},
		{"linux.readonlyPaths", func(s *specs.Spec) { s.Linux.ReadonlyPaths = []string{"/proc/bus"} }, Unconfined},
		{"linux.mountLabel", func(s *specs.Spec) { s.Linux.MountLabel = "x" }, Unconfined},
		{"linux.intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, ""},
		{"linux.memoryPolicy", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }, ""},
	}
}

func TestSpec_OrdinaryContainer_IsAccepted(t *testing.T) {
	if _, err := check(t, &Policy{UID: user}, harmless(t)); err != nil {
		t.Error(err)
	}
}

func TestSpec_RefusesPrivileges(t *testing.T) {
	for _, v := range violations() {
		s := harmless(t)
		v.change(s)
		_, err := check(t, &Policy{UID: user}, s)
		if err == nil || reason.Of(err) != reason.PolicyDenied || !strings.HasPrefix(err.Error(), v.field) {
			t.Errorf("%s: %v", v.field, err)
		}
		others := slices.DeleteFunc(Flags(), func(f Flag) bool { return f == v.flag })
		if _, err := check(t, &Policy{UID: user, Flags: others}, s); err == nil {
			t.Errorf("%s: allowed without the flag %q", v.field, v.flag)
		}
		if v.flag == "" {
			continue
		}
		if _, err := check(t, &Policy{UID: user, Flags: []Flag{v.flag}}, s); err != nil {
			t.Errorf("%s: refused with the flag %q: %v", v.field, v.flag, err)
		}
	}
}

// An unknown member, or a second one that differs in case, reaches no runtime.
func TestSpec_ReturnsCanonicalForm(t *testing.T) {
	raw, err := json.Marshal(harmless(t))
	if err != nil {
		t.Fatal(err)
	}
	tricky := strings.Replace(string(raw), "{", `{"unknown":{"path":"/x"},"HOOKS":{"prestart":null},`, 1)
	got, err := (&Policy{UID: user}).Spec([]byte(tricky), options())
	if err != nil || strings.Contains(string(got), "unknown") || strings.Contains(string(got), "HOOKS") {
		t.Errorf("%v: %s", err, got)
	}
	twice := strings.Replace(string(raw), `"linux":`, `"Linux":{"devices":[{"path":"/dev/sda","type":"b","major":8,"minor":0}]},"linux":`, 1)
	if got, err := (&Policy{UID: user}).Spec([]byte(twice), options()); err == nil && strings.Contains(string(got), "/dev/sda") {
		t.Errorf("devices of the other member were accepted: %s", got)
	}
}

func TestSpec_Fill_AddsDefaultProfile(t *testing.T) {
	s := harmless(t)
	s.Linux.Seccomp = nil
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := (&Policy{UID: user}).Spec(raw, SpecOptions{Fill: true})
	if err != nil || !strings.Contains(string(got), `"seccomp":{`) {
		t.Errorf("%v: %.200s", err, got)
	}
}

// Every member of a spec is refused in some form, or listed here as harmless: a new version of the specification
// must not open a way around the policy.
func TestSpec_EveryMemberIsCovered(t *testing.T) {
	judged := make(map[string]bool)
	for _, v := range violations() {
		judged[v.field] = true
	}
	for _, name := range harmlessMembers() {
		judged[name] = true
	}
	for _, name := range members(reflect.TypeFor[specs.Spec](), "") {
		if !judged[name] {
			t.Errorf("%s: neither refused nor listed as harmless", name)
		}
	}
}

// harmlessMembers are those that refer to nothing of the host, or only limit the container.
func harmlessMembers() []string {
	return []string{
		"ociVersion", "hostname", "domainname", "root.readonly",
		"process.terminal", "process.consoleSize", "process.user", "process.args", "process.commandLine", "process.env",
		"process.cwd", "process.rlimits", "process.noNewPrivileges", "process.execCPUAffinity",
		"linux.uidMappings", "linux.gidMappings", "linux.personality", "linux.timeOffsets",
		"linux.resources.pids", "linux.resources.blockIO", "linux.resources.rdma",
		"linux.resources.cpu", "linux.resources.memory", // except the members that are refused
		"linux.seccomp",
	}
}

// members lists the members of a spec, and those of its parts that are refused by member.
func members(typ reflect.Type, prefix string) []string {
	split := []string{"process", "root", "linux", "hooks", "process.capabilities", "linux.resources"}
	var out []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name = prefix + name; !slices.Contains(split, name) {
			out = append(out, name)
			continue
		}
		out = append(out, members(f.Type.Elem(), name+".")...)
	}
	return out
}

func TestSpec_MountsOfAllowedDirectories(t *testing.T) {
	base, err := os.MkdirTemp("/root", "policy") // in a directory that only root can change
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	own := filepath.Join(base, "own")
	if err := os.MkdirAll(filepath.Join(own, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, user, user); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	p := &Policy{UID: user, Mounts: []string{base}}
	for _, c := range []struct {
		source  string
		options []string
		ok      bool
	}{
		{own, []string{"bind", "ro"}, true},
		{own, []string{"rbind", "rprivate", "ro"}, true},
		{own, []string{"bind"}, false},                                          // a set-user-id program created there would work on the host
		{own, []string{"bind", "ro", "rw"}, false},                              // the last one counts
		{own, []string{"bind", "ro", "rshared"}, false},                         // mounts would propagate to the host
		{own, []string{"bind", "ro", "idmap"}, false},                           // owners would change
		{filepath.Join(own, "below"), []string{"bind", "ro"}, false},            // the user can replace it by a link
		{filepath.Join(base, "link"), []string{"bind", "ro"}, false},            // leads outside
		{filepath.Join(base, "..", "etc"), []string{"bind", "ro"}, false},       // is outside
		{base + "x", []string{"bind", "ro"}, false},                             // has the same prefix
		{filepath.Join(base, "own", "..", "own"), []string{"bind", "ro"}, true}, // Join cleans it
		{base + "/own/", []string{"bind", "ro"}, false},                         // is not clean
	} {
		s := harmless(t)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: c.source, Options: c.options})
		got, err := check(t, p, s)
		if (err == nil) != c.ok {
			t.Errorf("%s %v: %v", c.source, c.options, err)
		}
		if err == nil && strings.Contains(string(got), `"rbind"`) {
			t.Errorf("%s %v: mounts below are included", c.source, c.options)
		}
	}
}
