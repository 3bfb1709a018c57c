package mount

import (
	"slices"
	"strings"
)

// OverlayDirs returns the directories of an overlay mount, unescaped: upper is "" for a
// read-only one, lower is ordered topmost first. ok is false for other mounts.
func OverlayDirs(m Mount) (upper string, lower []string, ok bool) {
	if m.Type != "overlay" {
		return "", nil, false
	}
	for _, opt := range m.Options {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "upperdir":
			upper = unescape(value)
		case "lowerdir":
			for _, dir := range splitLower(value) {
				lower = append(lower, unescape(dir))
			}
		}
	}
	return upper, lower, len(lower) > 0
}

// ToLook returns mounts that show the same as the given ones, for reading only: the upper
// directory of an overlay becomes the topmost of its lower ones. Unmounting an overlay with an upper
// directory makes the kernel write out all dirty data of the underlying file system (unless
// it is volatile, and then it is mounted once only). Nothing else about the mounts changes.
func ToLook(mounts []Mount) []Mount {
	out := slices.Clone(mounts)
	for i, m := range out {
		upper, _, ok := OverlayDirs(m)
		if !ok || upper == "" {
			continue
		}
		options := make([]string, 0, len(m.Options))
		for _, o := range m.Options {
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "upperdir", "workdir", "volatile":
				continue
			case "lowerdir":
				o = "lowerdir=" + EscapeOverlayPath(upper) + ":" + value
			}
			options = append(options, o)
		}
		out[i].Options = options
	}
	return out
}
