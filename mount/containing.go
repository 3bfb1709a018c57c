package mount

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Point is a mount as the kernel lists it.
type Point struct {
	// Point is its directory, Type the file system's, Source its device or directory.
	Point, Type, Source string
}

// Containing returns the mount of a path: of those above it, the nearest, and of several at one
// directory the visible one. It returns fs.ErrNotExist for a path that does not exist.
func Containing(path string) (Point, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	mounts, err := list(func(m *mountinfo.Info) bool {
		return abs == m.Mountpoint || strings.HasPrefix(abs, strings.TrimSuffix(m.Mountpoint, "/")+"/")
	})
	if err != nil {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	var best Point
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(best.Point) {
			best = Point{Point: m.Mountpoint, Type: m.FSType, Source: m.Source}
		}
	}
	if best.Point == "" {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, fs.ErrNotExist)
	}
	return best, nil
}
