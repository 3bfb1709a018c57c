package spec

import (
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Numbers of errors and address families that the filter answers with or looks at, the same on
// every architecture named below.
const (
	errnoEPERM  = 1
	errnoENOSYS = 38
	afVSOCK     = 40
)

// newNamespaces are the flags of clone(2) that make namespaces: mount, cgroup, uts, ipc, user, pid
// and network.
const newNamespaces = 0x7e020000

// seccomp is the default filter for a container with the given capabilities: what is not listed
// fails with EPERM. Calls that only matter to whoever has a capability come with it.
func seccomp(caps []string) *specs.LinuxSeccomp {
	eperm, enosys := uint(errnoEPERM), uint(errnoENOSYS)
	allow := func(names string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: strings.Fields(names), Action: specs.ActAllow}
	}
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &eperm,
		Architectures:   architectures(runtime.GOARCH),
		Syscalls:        []specs.LinuxSyscall{allow(commonCalls)},
	}
	for _, g := range capabilityCalls() {
		if slices.ContainsFunc(g.caps, func(c string) bool { return slices.Contains(caps, c) }) {
			p.Syscalls = append(p.Syscalls, allow(g.calls))
		}
	}
	if extra := architectureCalls(runtime.GOARCH); extra != "" {
		p.Syscalls = append(p.Syscalls, allow(extra))
	}
	p.Syscalls = append(p.Syscalls, personalityRules()...)
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
		// A virtual machine's host must not be reached past the network namespace.
		Names: []string{"socket"}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Index: 0, Value: afVSOCK, Op: specs.OpNotEqual}},
	})
	if !slices.Contains(caps, "CAP_SYS_ADMIN") {
		p.Syscalls = append(p.Syscalls,
			specs.LinuxSyscall{
				Names: []string{"clone"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{{
					Index: cloneFlagsIndex(runtime.GOARCH), Value: newNamespaces, ValueTwo: 0, Op: specs.OpMaskedEqual,
				}},
			},
			// Its flags are in memory, where a filter cannot look; ENOSYS makes libc use clone.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys})
	}
	return p
}

// personalityRules allow the execution domains that differ in harmless ways: Linux, with 32 bit
// uname, without address randomisation, both, and asking.
func personalityRules() []specs.LinuxSyscall {
	var out []specs.LinuxSyscall
	for _, domain := range []uint64{0x0, 0x8, 0x20000, 0x20008, 0xffffffff} {
		out = append(out, specs.LinuxSyscall{
			Names: []string{"personality"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: domain, Op: specs.OpEqualTo}},
		})
	}
	return out
}

// architectures are the native one and those whose programs its kernel runs as well. Each costs every
// start of a process in a container some 3 ms of compiling the filter, and the third on amd64 ten:
// x32 is left out, which kernels have off by default; its calls are not let through.
func architectures(goarch string) []specs.Arch {
	switch goarch {
	case "amd64":
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86}
	case "arm64":
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	case "s390x":
		return []specs.Arch{specs.ArchS390X, specs.ArchS390}
	case "ppc64le":
		return []specs.Arch{specs.ArchPPC64LE}
	case "riscv64":
		return []specs.Arch{specs.ArchRISCV64}
	default:
		return nil // the runtime's native one
	}
}

// architectureCalls exist on one architecture alone.
func architectureCalls(goarch string) string {
	switch goarch {
	case "amd64", "386":
		return "arch_prctl modify_ldt"
	case "arm", "arm64":
		return "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
	case "s390x":
		return "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"
	case "ppc64le":
		return "sync_file_range2 swapcontext"
	case "riscv64":
		return "riscv_flush_icache"
	default:
		return ""
	}
}

// cloneFlagsIndex is the argument of clone that holds its flags.
func cloneFlagsIndex(goarch string) uint {
	if goarch == "s390x" {
		return 1
	}
	return 0
}
