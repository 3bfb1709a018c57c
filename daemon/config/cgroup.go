package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// CgroupConfig is the daemon's own cgroup; shims are started in it.
type CgroupConfig struct {
	// Path is the cgroup that the daemon moves itself to and creates if it is missing; empty: the one it
	// was started in.
	Path string `toml:"path"`
}

// check returns an error for a path that is not a cgroup's.
func (c CgroupConfig) check() error {
	if c.Path != "" && (!filepath.IsAbs(c.Path) || filepath.Clean(c.Path) == "/") {
		return fmt.Errorf("cgroup.path %q: want an absolute path below the root: %w", c.Path, errdefs.ErrInvalidArgument)
	}
	return nil
}

// cgroupParent separates daemons: the host's main one has /cleat, any other its own name.
func cgroupParent(root, state string) string {
	if root == defaultRoot && state == defaultState {
		return "/cleat"
	}
	sum := sha256.Sum256([]byte(root + "\x00" + state))
	return "/cleat-" + hex.EncodeToString(sum[:4])
}
