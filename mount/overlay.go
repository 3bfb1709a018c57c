package mount

import "strings"

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
