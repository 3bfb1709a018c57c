package dirs

import (
	"strings"

	"github.com/cleatproject/cleat/mount"
)

// Overlay returns the mount of stacked directories, the topmost first in lower. Without
// upper it is read-only.
func Overlay(options, lower []string, upper, work string) []mount.Mount {
	options = append([]string(nil), options...)
	if upper != "" {
		options = append(options, "workdir="+mount.EscapeOverlayPath(work), "upperdir="+mount.EscapeOverlayPath(upper))
	}
	var text strings.Builder
	text.WriteString("lowerdir=")
	for i, dir := range lower {
		if i > 0 {
			text.WriteByte(':')
		}
		text.WriteString(mount.EscapeOverlayPath(dir))
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, text.String())}}
}
