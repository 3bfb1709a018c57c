package spec

import (
	"fmt"
	"slices"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccomp returns the default filter of system calls for a container with the given capabilities: the profile that
// docker applies. Calls that it does not list fail with EPERM; calls that need a capability are allowed with it.
//
// Of the architectures, x32 is left out: kernels have it off by default, and each start of a process would take about
// 10 ms longer to compile the filter. Calls of an architecture that is left out are refused.
func seccomp(caps []string) (*specs.LinuxSeccomp, error) {
	p, err := profile.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
	})
	if err != nil {
		return nil, fmt.Errorf("choose seccomp profile: %w", err)
	}
	p.Architectures = slices.DeleteFunc(p.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	return p, nil
}
