package config

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/policy"
)

// PolicyConfig holds the rights of one user.
type PolicyConfig struct {
	// Mode is restricted, or unrestricted, which makes the user equivalent to root. Empty: restricted.
	Mode string `toml:"mode"`
	// Mounts are directories of the host that containers may have mounts from.
	Mounts []string `toml:"mounts"`
	// Runtimes may be used in requests in addition to the defaults.
	Runtimes []string `toml:"runtimes"`
	// Flags are privileges that are allowed.
	Flags []string `toml:"flags"`
}

// policy returns the policy for a user; nil for an unrestricted one.
func (c PolicyConfig) policy(uid uint32, runtime string) (*policy.Policy, error) {
	switch c.Mode {
	case "", "restricted":
	case "unrestricted":
		if len(c.Mounts)+len(c.Runtimes)+len(c.Flags) > 0 {
			return nil, fmt.Errorf("mode unrestricted excludes mounts, runtimes and flags: %w", errdefs.ErrInvalidArgument)
		}
		return nil, nil // no policy is the documented result
	default:
		return nil, fmt.Errorf("mode %q: want restricted or unrestricted: %w", c.Mode, errdefs.ErrInvalidArgument)
	}
	p := &policy.Policy{UID: uid, Default: runtime, Mounts: c.Mounts, Runtimes: c.Runtimes}
	for _, f := range c.Flags {
		p.Flags = append(p.Flags, policy.Flag(f))
	}
	return p, p.Check()
}
