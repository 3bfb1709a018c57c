package spec

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// outcome is what the filter does with a call whose arguments are zero but for the one given.
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
	plain := seccomp(defaultCapabilities())
	admin := seccomp(append(defaultCapabilities(), "CAP_SYS_ADMIN"))
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
		{plain, "socket", afVSOCK, false},
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

// libc falls back to clone where clone3 says that it does not exist.
func TestClone3DoesNotExist(t *testing.T) {
	for _, r := range seccomp(nil).Syscalls {
		if slices.Contains(r.Names, "clone3") && (r.Action != specs.ActErrno || *r.ErrnoRet != errnoENOSYS) {
			t.Errorf("clone3: %+v", r)
		}
	}
}

func TestCallsAreListedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range strings.Fields(commonCalls) {
		if seen[c] {
			t.Errorf("%s is listed twice", c)
		}
		seen[c] = true
	}
}
