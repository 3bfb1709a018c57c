package activation

import "github.com/cleatproject/cleat/mount"

// TryTransform plans a mount and formats it, without changes on disk.
func TryTransform(m mount.Mount) {
	p, err := planOf([]mount.Mount{{Type: "bind", Source: "/x"}, m}, true)
	if err != nil {
		return
	}
	out := p.steps[1].mount
	if format(&out, []Active{{Mount: mount.Mount{Type: "bind", Source: "/x"}, Point: "/p"}}) != nil {
		return
	}
	for _, o := range takeOptions(&out, mkdirPrefix) {
		_, _ = parseDirectory(o[1])
	}
	for _, o := range takeOptions(&out, mkfsPrefix) {
		_, _ = parseSize(o[1])
	}
}
