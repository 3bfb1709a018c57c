package activation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

// loopType is the only type of mount that the kernel does not implement.
const loopType = "loop"

// The transforms: prefixes of types.
const (
	formatting = "format"
	makingFS   = "mkfs"
	makingDirs = "mkdir"
)

func isTransform(name string) bool {
	return name == formatting || name == makingFS || name == makingDirs
}

// maxMounts is more than any snapshot has, and bounds a request.
const maxMounts = 512

// step is a mount and its transforms.
type step struct {
	mount      mount.Mount
	transforms []string
}

// plan lists the mounts to perform.
type plan struct {
	steps []step
	// returnLast marks that the last step is returned as a system mount after its transforms.
	returnLast bool
	// rest is returned unchanged.
	rest []mount.Mount
	// temporary mounts everything.
	temporary bool
}

// Handles reports whether a list of mounts is for Activate: it has a mount that the kernel does not implement.
func Handles(mounts []mount.Mount) bool {
	return slices.ContainsFunc(mounts, func(m mount.Mount) bool {
		return m.Type == loopType || len(split(m).transforms) > 0
	})
}

// split separates the transforms of a mount's type from the type.
func split(m mount.Mount) step {
	s := step{mount: m}
	for {
		first, rest, more := strings.Cut(s.mount.Type, "/")
		if !more || !isTransform(first) {
			return s
		}
		s.transforms, s.mount.Type = append(s.transforms, first), rest
	}
}

// planOf determines which mounts to perform.
func planOf(mounts []mount.Mount, temporary bool) (plan, error) {
	if len(mounts) == 0 || len(mounts) > maxMounts {
		return plan{}, fmt.Errorf("%d mounts: want 1 to %d: %w", len(mounts), maxMounts, errdefs.ErrInvalidArgument)
	}
	last := len(mounts) - 1
	if !temporary {
		for last >= 0 && !Handles(mounts[last:last+1]) {
			last--
		}
		if last < 0 {
			return plan{}, fmt.Errorf("mounts need no activation: %w", errdefs.ErrNotImplemented)
		}
	}
	p := plan{temporary: temporary, rest: mounts[last+1:]}
	for _, m := range mounts[:last+1] {
		s := split(m)
		if strings.Contains(s.mount.Type, "/") || s.mount.Type == "" {
			return plan{}, fmt.Errorf("mount type %q: want a type, after any of the transforms format, mkfs and mkdir: %w", m.Type, errdefs.ErrInvalidArgument)
		}
		p.steps = append(p.steps, s)
	}
	p.returnLast = !temporary && p.steps[last].mount.Type != loopType
	return p, nil
}
