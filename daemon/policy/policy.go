// Package policy decides what a user that is limited by the daemon's configuration may request. It gets
// decoded requests and refuses, by the name of the field, everything that would make the user equivalent to root on
// the host: paths of the host that the daemon or a runtime would use on the user's behalf, namespaces of the
// host, devices, added capabilities, programs to run.
//
// A spec is checked against a list of allowed, and not of dangerous members: an accepted spec is
// replaced by its canonical form, so that a runtime reads nothing that was not checked. The only I/O of the package
// is to read the status of paths of allowed mounts and of FIFOs. docs/security.md states the rules.
package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
)

// Flag is a privilege that a policy can allow.
type Flag string

// The flags. Each except HostUTS, Sysctls and Annotations makes the user equivalent to root.
const (
	HostNetwork  Flag = "host-network"
	HostPID      Flag = "host-pid"
	HostIPC      Flag = "host-ipc"
	HostUTS      Flag = "host-uts"
	HostCgroup   Flag = "host-cgroup"
	Capabilities Flag = "capabilities"
	Devices      Flag = "devices"
	Unconfined   Flag = "unconfined"
	Sysctls      Flag = "sysctls"
	Annotations  Flag = "annotations"
)

// Flags returns every flag.
func Flags() []Flag {
	return []Flag{HostNetwork, HostPID, HostIPC, HostUTS, HostCgroup, Capabilities, Devices, Unconfined, Sysctls, Annotations}
}

// Policy holds the rights of one user. The zero value is restricted and allows no exceptions. It is immutable
// after its creation, and safe for concurrent use.
type Policy struct {
	// UID is the user's id.
	UID uint32
	// Mounts are directories of the host that containers may mount.
	Mounts []string
	// Runtimes are runtime names, paths of shims and of OCI runtimes that requests may name. The
	// daemon's default and the names of cleat's own shim are always allowed.
	Runtimes []string
	// Flags are the allowed privileges.
	Flags []Flag
	// Default is the daemon's default runtime.
	Default string
}

// Check returns an error for an invalid policy.
func (p *Policy) Check() error {
	for _, dir := range p.Mounts {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
			return fmt.Errorf("mounts: %q: want a clean absolute path: %w", dir, errdefs.ErrInvalidArgument)
		}
	}
	for _, f := range p.Flags {
		if !slices.Contains(Flags(), f) {
			return fmt.Errorf("flags: %q: want one of %v: %w", f, Flags(), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// has reports whether a flag is allowed.
func (p *Policy) has(f Flag) bool { return slices.Contains(p.Flags, f) }

// Refuse returns the error for a part of a request. what is the name of its field.
func (p *Policy) Refuse(what, format string, args ...any) error {
	text := what
	if format != "" {
		text += ": " + fmt.Sprintf(format, args...)
	}
	return fmt.Errorf("%s: not allowed by the policy of user %d: %w", text, p.UID, reason.PolicyDenied)
}

// need returns an error if set is true, unless a flag allows it.
func (p *Policy) need(f Flag, set bool, what string) error {
	if !set || p.has(f) {
		return nil
	}
	return p.Refuse(what, "")
}

// none returns an error if set is true; no flag allows it.
func (p *Policy) none(set bool, what string) error {
	if !set {
		return nil
	}
	return p.Refuse(what, "")
}

// Runtime checks the name of a runtime; empty is the daemon's default.
func (p *Policy) Runtime(name string) error {
	if slices.Contains([]string{"", p.Default, "io.containerd.cleat.v2", "io.containerd.runc.v2"}, name) || slices.Contains(p.Runtimes, name) {
		return nil
	}
	return p.Refuse("runtime", "%.200q", name)
}

// Labels checks the labels of an object: those by which the daemon acts with its own rights are refused.
func (p *Policy) Labels(labels map[string]string) error {
	for key := range labels {
		switch {
		case key == "cleat.io/stop-signal":
		case strings.HasPrefix(key, "cleat.io/"), strings.HasPrefix(key, "containerd.io/restart.log"),
			strings.HasPrefix(key, "containerd.io/defaults/"), strings.HasPrefix(key, "containerd.io/namespace."):
			return p.Refuse("labels", "%s", key)
		}
	}
	return nil
}
