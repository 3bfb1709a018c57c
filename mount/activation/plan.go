package activation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

// loopType is the type of the one kind of mount that the kernel does not know.
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

// maxMounts is more than any snapshot has, and keeps a request within reason.
const maxMounts = 512

// step is a mount with what is to be done to it first.
type step struct {
	mount      mount.Mount
	transforms []string
}

// plan is what is to be performed of a list of mounts.
type plan struct {
	steps []step
	// handBack says that the last step is a system mount once it is transformed.
	handBack bool
	// rest is handed back as it is.
	rest []mount.Mount
	// temporary has everything mounted.
	temporary bool
}

// Handles tells whether a list of mounts is for Activate: it holds what the kernel cannot mount.
func Handles(mounts []mount.Mount) bool {
	return slices.ContainsFunc(mounts, func(m mount.Mount) bool {
		return m.Type == loopType || len(split(m).transforms) > 0
	})
}

// split takes the transforms off a mount's type.
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

// planOf finds out what is to be performed.
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
			return plan{}, fmt.Errorf("these mounts need no activation: %w", errdefs.ErrNotImplemented)
		}
	}
	p := plan{temporary: temporary, rest: mounts[last+1:]}
	for _, m := range mounts[:last+1] {
		s := split(m)
		if strings.Contains(s.mount.Type, "/") || s.mount.Type == "" {
			return plan{}, fmt.Errorf("mount type %q: there are the transforms format, mkfs and mkdir, and a type has to follow: %w", m.Type, errdefs.ErrInvalidArgument)
		}
		p.steps = append(p.steps, s)
	}
	p.handBack = !temporary && p.steps[last].mount.Type != loopType
	return p, nil
}
