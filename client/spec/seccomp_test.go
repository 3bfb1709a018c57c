package spec

import (
	"encoding/json"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Numbers of the error and the address families in the tests.
const (
	errnoENOSYS = 38
	afALG       = 38
	afVSOCK     = 40
)

// profileFor returns the default filter for some capabilities.
func profileFor(t *testing.T, caps []string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := seccomp(caps)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome returns the filter's result for a call whose arguments are zero except the one given.
func outcome(p *specs.LinuxSeccomp, call string, index uint, value uint64) specs.LinuxSeccompAction {
	for _, r := range p.Syscalls {
		if !slices.Contains(r.Names, call) {
			continue
		}
		match := true
		for _, a := range r.Args {
			var v uint64
			if a.Index == index {
				v = value
			}
			switch a.Op {
			case specs.OpEqualTo:
				match = match && v == a.Value
			case specs.OpNotEqual:
				match = match && v != a.Value
			case specs.OpLessThan:
				match = match && v < a.Value
			case specs.OpMaskedEqual:
				match = match && v&a.Value == a.ValueTwo
			default:
				match = false
			}
		}
		if match {
			return r.Action
		}
	}
	return p.DefaultAction
}

func TestSeccomp(t *testing.T) {
	plain := profileFor(t, defaultCapabilities())
	admin := profileFor(t, append(defaultCapabilities(), "CAP_SYS_ADMIN"))
	const newUser, thread = 0x10000000, 0x10f00
	for _, tt := range []struct {
		profile *specs.LinuxSeccomp
		call    string
		arg     uint64
		allowed bool
	}{
		{plain, "read", 0, true},
		{plain, "openat2", 0, true},
		{plain, "chroot", 0, true}, // comes with a default capability
		{plain, "socket", 1, true},
		{plain, "socket", 10, true}, // IPv6
		{plain, "socket", afVSOCK, false},
		{plain, "socket", afALG, false},
		{plain, "personality", 0x20000, true},
		{plain, "personality", 0x40000, false}, // READ_IMPLIES_EXEC and its like
		{plain, "clone", thread, true},
		{plain, "clone", newUser, false},
		{plain, "clone3", 0, false},
		{plain, "unshare", 0, false},
		{plain, "mount", 0, false},
		{plain, "bpf", 0, false},
		{plain, "keyctl", 0, false},
		{plain, "add_key", 0, false},
		{plain, "io_uring_setup", 0, false},
		{plain, "userfaultfd", 0, false},
		{plain, "open_by_handle_at", 0, false},
		{plain, "kexec_load", 0, false},
		{admin, "clone", newUser, true},
		{admin, "clone3", 0, true},
		{admin, "mount", 0, true},
		{admin, "init_module", 0, false},
	} {
		if got := outcome(tt.profile, tt.call, 0, tt.arg) == specs.ActAllow; got != tt.allowed {
			t.Errorf("%s(%#x): allowed %v, want %v", tt.call, tt.arg, got, tt.allowed)
		}
	}
}

// libc falls back to clone if clone3 returns ENOSYS.
func TestSeccomp_Clone3_ReturnsENOSYS(t *testing.T) {
	for _, r := range profileFor(t, nil).Syscalls {
		if slices.Contains(r.Names, "clone3") && (r.Action != specs.ActErrno || *r.ErrnoRet != errnoENOSYS) {
			t.Errorf("clone3: %+v", r)
		}
	}
}

// Each capability allows the calls that need it, and without it they fail.
func TestSeccomp_CallsOfCapabilities(t *testing.T) {
	for capability, call := range map[string]string{
		"CAP_DAC_READ_SEARCH": "open_by_handle_at", "CAP_SYS_ADMIN": "unshare", "CAP_BPF": "bpf", "CAP_PERFMON": "perf_event_open",
		"CAP_SYSLOG": "syslog", "CAP_SYS_BOOT": "reboot", "CAP_SYS_CHROOT": "chroot", "CAP_SYS_MODULE": "finit_module",
		"CAP_SYS_PACCT": "acct", "CAP_SYS_PTRACE": "kcmp", "CAP_SYS_RAWIO": "iopl", "CAP_SYS_TIME": "clock_settime",
		"CAP_SYS_TTY_CONFIG": "vhangup", "CAP_SYS_NICE": "mbind",
	} {
		if got := outcome(profileFor(t, []string{capability}), call, 0, 0); got != specs.ActAllow {
			t.Errorf("%s with %s: %s", call, capability, got)
		}
		if got := outcome(profileFor(t, nil), call, 0, 0); got == specs.ActAllow {
			t.Errorf("%s without %s: allowed", call, capability)
		}
	}
}

// Unlisted calls fail, x32 is left out, and profiles share no memory.
func TestSeccomp_Defaults(t *testing.T) {
	p := profileFor(t, nil)
	if p.DefaultAction != specs.ActErrno || p.DefaultErrnoRet == nil || *p.DefaultErrnoRet != 1 || slices.Contains(p.Architectures, specs.ArchX32) {
		t.Errorf("%s, %v, %v", p.DefaultAction, p.DefaultErrnoRet, p.Architectures)
	}
	before, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Syscalls[0].Names[0] = "changed"
	if after, err := json.Marshal(profileFor(t, nil)); err != nil || string(after) != string(before) {
		t.Errorf("changed by another profile: %v", err)
	}
}
