package spec

import specs "github.com/opencontainers/runtime-spec/specs-go"

// DefaultCapabilities returns the capabilities of a container by default.
func DefaultCapabilities() []string { return defaultCapabilities() }

// DefaultSeccomp returns the system call filter of a container with the default capabilities. It fails if the kernel's
// version cannot be read.
func DefaultSeccomp() (*specs.LinuxSeccomp, error) { return seccomp(defaultCapabilities()) }

// MaskedPaths returns the paths that are hidden from containers.
func MaskedPaths() []string { return maskedPaths() }

// ReadonlyPaths returns the paths that containers cannot write to.
func ReadonlyPaths() []string { return readonlyPaths() }
