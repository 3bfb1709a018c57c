package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ResourcesOf checks the resources of an update and returns their canonical form.
func (p *Policy) ResourcesOf(raw []byte) ([]byte, error) {
	var r specs.LinuxResources
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := p.Resources(&r, false); err != nil {
		return nil, err
	}
	out, err := json.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	return out, nil
}

// Resources checks limits. Those of a new container must begin with a rule that denies every device; those of
// an update change no device rules.
func (p *Policy) Resources(r *specs.LinuxResources, created bool) error {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	var errs []error
	if !p.has(Devices) {
		errs = append(errs, p.deviceRules(r.Devices, created))
	}
	for key := range r.Unified {
		controller, _, _ := strings.Cut(key, ".")
		known := slices.Contains([]string{"memory", "cpu", "io", "pids", "hugetlb", "cpuset", "rdma", "misc"}, controller)
		errs = append(errs, p.none(!known || strings.Contains(key, "/"), fmt.Sprintf("linux.resources.unified: %.100q", key)))
	}
	for _, h := range r.HugepageLimits {
		errs = append(errs, p.none(strings.Contains(h.Pagesize, "/"), fmt.Sprintf("linux.resources.hugepageLimits: %.100q", h.Pagesize)))
	}
	if c := r.CPU; c != nil {
		errs = append(errs, p.none(c.RealtimeRuntime != nil || c.RealtimePeriod != nil, "linux.resources.cpu.realtimeRuntime"))
	}
	if m := r.Memory; m != nil {
		errs = append(errs, p.none(m.DisableOOMKiller != nil && *m.DisableOOMKiller, "linux.resources.memory.disableOOMKiller"))
	}
	return cmp.Or(append(errs, p.none(r.Network != nil, "linux.resources.network"))...)
}

func (p *Policy) deviceRules(rules []specs.LinuxDeviceCgroup, created bool) error {
	const what = "linux.resources.devices"
	if len(rules) == 0 && !created {
		return nil
	}
	if len(rules) == 0 || !deniesAll(rules[0]) {
		return p.Refuse(what, "first rule does not deny every device")
	}
	for _, r := range rules[1:] {
		if r.Allow && r.Access != "m" && !harmlessDevice(r.Type, r.Major, r.Minor) {
			return p.Refuse(what, "rule allows %s", describe(r))
		}
	}
	return nil
}

func deniesAll(r specs.LinuxDeviceCgroup) bool {
	wild := func(n *int64) bool { return n == nil || *n == -1 }
	return !r.Allow && (r.Type == "" || r.Type == "a") && wild(r.Major) && wild(r.Minor) && (r.Access == "" || r.Access == "rwm")
}

func describe(r specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if n == nil {
			return "*"
		}
		return fmt.Sprint(*n)
	}
	return fmt.Sprintf("%.10s %s:%s %.10s", r.Type, number(r.Major), number(r.Minor), r.Access)
}

// harmlessDevice reports whether a device is one that every container has: null, zero, full, random, urandom,
// tty, console, ptmx and the pseudo terminals.
func harmlessDevice(typ string, major, minor *int64) bool {
	if typ != "c" || major == nil {
		return false
	}
	if *major == 136 {
		return true
	}
	return minor != nil && (*major == 1 && slices.Contains([]int64{3, 5, 7, 8, 9}, *minor) ||
		*major == 5 && *minor >= 0 && *minor <= 2)
}

// unified reports whether the host has only the unified cgroup hierarchy.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
