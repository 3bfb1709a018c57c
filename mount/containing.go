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
	// Point is where it is, Type the file system's, Source what it is made of.
	Point, Type, Source string
}

// Containing returns the mount that a path is on: of those above it, the nearest, and of several at one
// place the one that shows. It returns fs.ErrNotExist for a path that does not exist.
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
